"""gpt.prompt with tools, on tiny models and real ones alike: calls always parse, because they are held to it."""

import json

import pytest

from jupyter_gpt.errors import GPTError


def shout(text: str) -> str:
    """Says it loudly."""
    return text.upper() + "!"


def record(text: str) -> None:
    """Writes it down."""
    record.seen.append(text)


record.writes, record.seen = True, []


@pytest.fixture
def chat(gpt, tiny_model):
    record.seen.clear()
    return tiny_model(gpt, "chat", chat=True, context=2048)


def tools_of(trace):
    found = [trace] if trace["kind"] == "tool" else []
    return found + [node for child in trace.get("children", []) for node in tools_of(child)]


def calls_of(trace):
    found = [trace] if trace["kind"] == "call" else []
    return found + [node for child in trace.get("children", []) for node in calls_of(child)]


@pytest.mark.parametrize("chatting", [True, False])
def test_a_model_of_noise_makes_calls_that_parse(gpt, tiny_model, chatting):
    tiny_model(gpt, "noise", chat=chatting, context=4096)
    done = gpt.prompt(
        "What now?",
        model="noise",
        react=True,
        tools=["calculator", shout],
        steps=3,
        max_tokens=600,
        temperature=1.0,
        seed=3,
    )
    calls = calls_of(done.trace)
    assert calls
    for call in calls:
        assert "not in the form" not in call.get("note", "")
    ran = tools_of(done.trace)
    assert {node["label"] for node in ran} <= {"calculator", "shout"}
    assert all(node["result"]["arguments"] for node in ran if "result" in node)
    assert done.trace["label"] == "react"
    json.dumps(done.as_dict())


def test_names_commas_and_functions(gpt, chat):
    from jupyter_gpt.prompting.tools.act import toolset_for

    found = toolset_for(chat, ["calculator,python", [shout]], {}, allow="shout", steps=4)
    assert [tool.name for tool in found.tools] == ["calculator", "python", "shout"]
    assert (found.steps, found.native, found.constrained) == (4, False, True)
    assert toolset_for(chat, shout, {}).tools[0].name == "shout"
    for wrong, why in (
        ("calculater", "did you mean calculator"),
        ("search", "needs an index"),
        (3, "expected a function"),
    ):
        with pytest.raises(GPTError, match=why):
            toolset_for(chat, wrong, {})


def test_search_is_the_index_there_is(gpt, chat):
    from jupyter_gpt.prompting.tools.act import toolset_for

    indexes = {"kb": object()}
    assert toolset_for(chat, "search", indexes).tools[0].name == "search"
    with pytest.raises(GPTError, match="search:kb, search:more"):
        toolset_for(chat, "search", {"kb": 1, "more": 2})
    assert toolset_for(chat, "search:more", {"kb": 1, "more": 2}).tools[0].name == "search"


def test_headless_a_tool_that_writes_is_denied(gpt, chat, monkeypatch):
    from jupyter_gpt.prompting.ask import Ask
    from jupyter_gpt.prompting.tools.act import act, toolset_for

    ask = Ask(lambda *_, **__: None)
    denied = act(ask, toolset_for(chat, record, {}), "record", {"text": "x"})
    assert "nobody is there to approve it (--allow record lets it act)" in denied.text
    assert record.seen == []
    assert act(ask, toolset_for(chat, record, {}, allow=["record"]), "record", {"text": "x"}).text == "done"
    assert record.seen == ["x"]
    decide = toolset_for(chat, record, {}, approve=lambda name, arguments: {"text": arguments["text"] + "y"})
    assert act(ask, decide, "record", {"text": "x"}).note == "edited by the approving function"
    refuse = toolset_for(chat, [record, shout], {}, approve=lambda name, arguments: name == "shout")
    assert "denied by the approving function" in act(ask, refuse, "record", {"text": "z"}).text
    assert act(ask, refuse, "shout", {"text": "z"}).text == "Z!"
    assert record.seen == ["x", "xy"]


def test_a_person_types(chat, monkeypatch, capsys):
    from jupyter_gpt.prompting.tools.approval import Nobody, by_input
    from jupyter_gpt.prompting.tools.tool import tool

    kept = tool(record)
    with pytest.raises(Nobody):
        by_input(kept, {"text": "x"})
    typed, shown = [], []

    def typing(prompt):
        shown.append(prompt)
        return typed.pop(0)

    typing.__module__ = "ipykernel.kernelbase"
    monkeypatch.setattr("builtins.input", typing)
    typed[:] = ["what?", "approve"]
    assert by_input(kept, {"text": "x"}).approved
    assert 'Allow record to run? It makes changes.\n{\n "text": "x"\n}' in shown[0]
    typed[:] = ["d"]
    assert not by_input(kept, {"text": "x"}).approved
    typed[:] = ["e", '{"text": "y"}']
    assert by_input(kept, {"text": "x"}).arguments == {"text": "y"}


def test_tools_and_react_are_asked_for_together(gpt, chat):
    with pytest.raises(GPTError, match="no tool to act with"):
        gpt.prompt("x", model="chat", react=True)
    with pytest.raises(GPTError, match="leave --cot out"):
        gpt.prompt("x", model="chat", tools="calculator", cot=True)


def test_a_dry_run_shows_the_first_prompt(gpt, chat):
    done = gpt.prompt("What is 3 * 4?", model="chat", tools="calculator", dry_run=True)
    assert "calculator(expression: string): Works out" in done.prompt
    assert done.text == ""
