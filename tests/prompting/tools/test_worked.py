"""Worked runs: read from their text, and laid out as the run that they are examples of."""

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.tool_calls import NoToolCalls
from jupyter_gpt.prompting.ask import run
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.tools.approval import Toolset
from jupyter_gpt.prompting.tools.protocols import example_run
from jupyter_gpt.prompting.tools.tool import tool
from jupyter_gpt.stages.prompt_techniques import compose

RUN = """
Thought: I need the price of one pear.
Action: price
Action Input: {"fruit": "pear"}
Observation: 0.55
and it is fresh
Thought: I now know the answer
Final Answer: 0.55 euros
"""
CALL = 'Thought: I need the price of one pear.\nAction: price\nAction Input: {"fruit": "pear"}'
ANSWER = "Thought: I now know the answer\nFinal Answer: 0.55 euros"


def price(fruit: str) -> float:
    """What a fruit costs."""
    return {"pear": 0.55, "melon": 2.1}[fruit]


def options(**more):
    return Options(toolset=Toolset((tool(price),), **more), few_shot=(("What does a pear cost?", RUN),))


def test_a_run_is_read_turn_by_turn_and_written_again():
    shot = example_run("What does a pear cost?", RUN)
    assert shot.turns == (CALL, ANSWER)
    assert shot.results == ("0.55\nand it is fresh",)
    assert shot.as_text() == RUN.strip()
    assert [m["content"] for m in shot.as_written()] == [
        "What does a pear cost?",
        CALL,
        "Observation: 0.55\nand it is fresh",
        ANSWER,
    ]
    asked, called, told, said = shot.as_native(0)
    assert called["tool_calls"][0]["function"] == {"name": "price", "arguments": '{"fruit": "pear"}'}
    assert (told["role"], told["tool_call_id"]) == ("tool", called["tool_calls"][0]["id"])
    assert (asked["role"], said["content"]) == ("user", "0.55 euros")


@pytest.mark.parametrize(
    "text",
    [
        "It costs 0.55.",
        CALL,
        f"{CALL}\n{ANSWER}",
        f"{CALL}\nObservation: 0.55",
        f"{ANSWER}\nObservation: 1\n{ANSWER}",
        "",
    ],
)
def test_what_is_no_run_is_refused(text):
    with pytest.raises(GPTError, match="is no run of --react"):
        example_run("What does a pear cost?", text)


def test_a_chat_has_the_form_as_its_system_prompt_and_the_question_stands_alone(scripted):
    ask = scripted([CALL.replace("pear", "melon"), ANSWER.replace("0.55", "2.1")], system="Be brief.")
    answer = run(ask, compose(options()), "What does a melon cost?", options())
    assert answer.text == "2.1 euros"
    first, second = ask.send.asked
    assert [m["role"] for m in first] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert first[0]["content"].startswith("Be brief.\n\nAnswer the question.")
    assert "price(fruit: string): What a fruit costs." in first[0]["content"]
    assert first[-1]["content"] == "What does a melon cost?"
    assert second[-1]["content"] == "Observation: 2.1"
    assert {settings["system"] for settings in ask.send.settings} == {None}  # it stands among the messages


def test_a_base_model_reads_them_in_its_document(scripted):
    ask = scripted([" I need it.\nAction: price\nAction Input: melon", " I know.\nFinal Answer: 2.1"], chat=False)
    assert run(ask, compose(options()), "What does a melon cost?", options()).text == "2.1"
    assert ask.send.asked[0].endswith(
        f"\n\nQuestion: What does a pear cost?\n{RUN.strip()}\n\nQuestion: What does a melon cost?\nThought:"
    )


def test_native_calls_are_shown_as_native_calls(scripted):
    ask = scripted(["2.1 euros"])
    run(ask, compose(options(native=True)), "What does a melon cost?", options(native=True))
    [asked] = ask.send.asked
    assert [m["role"] for m in asked] == ["user", "assistant", "tool", "assistant", "user"]


def test_a_server_without_tools_is_shown_them_in_words(scripted):
    ask = scripted([ANSWER])
    send = ask.send

    def refusing(prompts, **settings):
        if settings.get("tools"):
            raise NoToolCalls("far takes no tool calls")
        return send(prompts, **settings)

    ask.send = refusing
    run(ask, compose(options(native=True)), "What does a melon cost?", options(native=True))
    assert send.asked[0][2]["content"] == CALL
