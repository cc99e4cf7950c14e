"""`%%agent` and the tools of `%%prompt` in a shell, on a real session with a model of noise."""

import pytest


def loud(text: str) -> str:
    """Says it loudly."""
    return text.upper()


@pytest.fixture
def gpt(gpt, tiny_model):
    tiny_model(gpt, "noise", chat=True, context=2048)
    return gpt


def test_it_works_on_a_goal_and_shows_the_tree(gpt, ip, shown):
    ip.user_ns["loud"] = loud
    line = (
        "%%agent noise --tools calculator,$loud --max-calls 4 --max-tokens 150 --tasks 2 --levels 1 --steps 2 "
        "--out done"
    )
    ip.run_cell(f"{line}\nMake some {{noise}}.\n").raise_error()
    done = ip.user_ns["done"]
    assert done.trace["label"] == "agent"
    assert done.trace["result"]["goal"] == "Make some {noise}."
    assert done.usage.completion_tokens > 0
    [text] = shown
    assert "agent" in text and "plans" in text
    assert gpt.last is done


def test_the_prompt_takes_functions_as_tools(gpt, ip, shown):
    ip.user_ns["loud"] = loud
    cell = "%%prompt noise --react --tools calculator,$loud --steps 1 --max-tokens 300 --out done\nHow loud?\n"
    ip.run_cell(cell).raise_error()
    done = ip.user_ns["done"]
    assert done.trace["label"] == "react"
    prompt = done.prompt
    assert "loud(text: string): Says it loudly." in prompt
    assert "one of calculator, loud" in prompt


def test_a_dry_run_shows_the_plan_that_is_asked_for(gpt, ip, shown):
    ip.run_cell("%%agent noise --tools python --dry-run\nCount to ten.\n").raise_error()
    [text] = shown
    assert "Goal: Count to ten." in text
    assert "python(code: string)" in text
    assert "nothing was sent" in text


def test_what_is_wrong_is_said(gpt, fails, ip):
    ip.user_ns["silent"] = lambda x: x
    assert "did you mean calculator" in fails("%%agent noise --tools calculatr\nGo.")
    assert "not a valid tool name" in fails("%%agent noise --tools $silent\nGo.")
    assert "has no variable nothing" in fails("%%agent noise --tools $nothing\nGo.")
    assert "--allow pyton is not among --tools (did you mean python?)" in fails(
        "%%agent noise --tools python --allow pyton\nGo."
    )
    assert "--tasks 0 must be above zero" in fails("%%agent noise --tasks 0\nGo.")
    assert "needs an index" in fails("%%prompt noise --tools search\nGo.")
    assert "no tool to act with" in fails("%%prompt noise --react\nGo.")


def test_help_and_completion(ip, gpt, capsys):
    from IPython.core.completer import provisionalcompleter

    ip.run_cell("%%agent --help")
    text = capsys.readouterr().out
    for option in ("--tools", "--approve", "--allow", "--tasks", "--levels", "--steps", "--max-calls", "--max-cost"):
        assert f"  {option}" in text
    ip.user_ns["loud"] = loud
    with provisionalcompleter():
        offered = lambda cell: [c.text for c in ip.Completer.completions(cell, len(cell)) if c._origin == "jupyter_gpt"]  # noqa: E731
        assert set(offered("%%agent noise --tools ")) >= {"calculator", "python", "search"}
        assert "$loud" in offered("%%prompt noise --tools $l")
        assert "--levels" in offered("%%agent --le")
