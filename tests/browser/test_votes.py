"""The voting form in JupyterLab: by keys alone or by clicks, each vote on disk at once, and only the table stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jupyter_gpt.report.report import MIME

SETUP = """import os; os.environ["JUPYTER_GPT_HOME"] = {home!r}
import jupyter_gpt
from fake_compare import Session
jupyter_gpt.gpt = Session({names!r})
%load_ext jupyter_gpt"""
BODY = "\nOnce upon a time\nThe capital of France is\n2 + 2 =\nWhy is the sky blue?"
TWO = ("storyteller", "smollm2")


@pytest.fixture
def ask(lab, open_notebook, tmp_path):
    """`ask(names, after=...)`: a notebook that compares the named models, its form waiting; and the file of votes."""
    shutil.copy(Path(__file__).with_name("fake_compare.py"), lab.root)

    def start(names: tuple[str, ...] = TWO, after: str = "after = 1"):
        setup = SETUP.format(home=str(tmp_path / "home"), names=names)
        notebook = open_notebook(setup, f"%%compare {' '.join(names)} --blind{BODY}", after)
        notebook.run_all()
        notebook.page.locator(".gpt-rank").wait_for()
        notebook.wait_idle()  # the cell waits for nobody
        return notebook, tmp_path / "home" / "rankings" / f"{'-vs-'.join(names)}.jsonl"

    return start


def kept(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def best(ranking: dict) -> str:
    first = ranking["order"][0]
    return ranking["completions"][first[0]]["model"] if len(first) == 1 else "tie"


def say(page, *keys: str) -> None:
    """Presses each key when the form has answered the one before."""
    for key in keys:
        seen = page.locator(".gpt-rank").inner_text()
        page.keyboard.press(key)
        page.wait_for_function("seen => document.querySelector('.gpt-rank')?.innerText !== seen", arg=seen)


def test_the_keyboard_alone_votes_undoes_and_finishes(ask):
    notebook, file = ask()
    page = notebook.page
    texts = page.locator("td", has_text="Lyon.").first
    assert texts.count() == 1 and not texts.is_visible(), "the table tells who wrote what"
    page.locator(".gpt-rank").focus()
    first = page.locator(".gpt-written").first.inner_text()
    assert "<b>" not in page.locator(".gpt-written").first.inner_html(), "a model's text was taken for HTML"

    say(page, "1")
    [vote] = kept(file)
    chosen = next(c["model"] for c in vote["completions"] if c["text"] == first)
    assert best(vote) == chosen and vote["time"] > 1e9
    page.get_by_text("1 ranked, 2 missing").wait_for()
    assert page.get_by_text(f"{chosen} 1").count() == 0, "the count tells whose text was chosen"

    say(page, "u")
    assert kept(file) == []
    say(page, "2", "0")
    assert [best(vote) for vote in kept(file)] == [next(n for n in TWO if n != chosen), "tie"]
    page.keyboard.press("1")
    page.get_by_text("3 ranked, 0 missing").wait_for()
    page.locator(".gpt-rank").wait_for(state="detached")
    texts.wait_for()
    assert page.get_by_text("✓ best").count() == 2
    notebook.wait_idle()  # the last vote closes the form; else a key has reached the notebook

    saved = notebook.saved()
    outputs = [output["data"] for output in saved["cells"][1]["outputs"]]
    assert [set(data) for data in outputs] == [{"text/plain", "text/html", MIME}]
    assert '"time"' not in json.dumps(outputs[0][MIME])
    assert "widgets" not in saved["metadata"]
    assert len(saved["cells"]) == 3


def test_clicks_vote_and_running_again_goes_on(ask):
    notebook, file = ask((*TWO, "bird"))
    page = notebook.page
    page.get_by_role("button", name="C is better").click()
    page.get_by_text("2 of 3, 1 ranked").wait_for()
    notebook.run_all()
    notebook.wait_idle()  # the form is another one
    page.get_by_text("2 of 3, 1 ranked").wait_for()
    page.get_by_role("button", name="Tie").click()
    page.get_by_text("3 of 3, 2 ranked").wait_for()
    page.get_by_role("button", name="Show results").click()
    page.locator(".gpt-rank").wait_for(state="detached")
    page.get_by_text("2 ranked, 1 missing; storyteller").wait_for()
    assert [len(vote["order"][0]) for vote in kept(file)] == [1, 3]


def test_a_vote_is_kept_while_another_cell_works(ask, tmp_path):
    go = tmp_path / "go"
    go.touch()
    notebook, file = ask(after=f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)")
    page = notebook.page
    go.unlink()
    notebook.command("notebook:run-cell")
    page.wait_for_function("() => document.querySelectorAll('.jp-InputPrompt')[2].innerText.includes('*')")
    page.get_by_role("button", name="A is better").click()
    page.get_by_text("2 of 3, 1 ranked").wait_for()
    assert len(kept(file)) == 1 and notebook.running()
    go.touch()


def test_after_a_reload_the_form_goes_on_and_says_the_outcome(ask):
    notebook, file = ask()
    page = notebook.page
    page.get_by_role("button", name="A is better").click()
    page.get_by_text("2 of 3, 1 ranked").wait_for()
    notebook.saved()
    page.reload()
    page.locator(".gpt-rank").wait_for()
    page.get_by_text("2 of 3, 1 ranked").wait_for()
    page.locator(".gpt-rank").focus()
    for count in ("2 ranked, 1 missing", "3 ranked, 0 missing"):
        page.keyboard.press("0")
        page.get_by_text(count).wait_for()
    page.locator(".gpt-rank").wait_for(state="detached")
    assert [best(vote) for vote in kept(file)][1:] == ["tie", "tie"]
