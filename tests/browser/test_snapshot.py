"""What a live view is saved as: on a page that is loaded again, after its kernel has gone, without trust."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from browser.conftest import wait_until
from jupyter_gpt.report.report import MIME

CELL = """from fake_run import FakeRun
from jupyter_gpt.notebook.views.follow import follow
from jupyter_gpt.notebook.views.run_report import run_report"""
SAVED = "Saved while the run was at work"
BROKEN = ("Loading widget", "model not found", "LiveRun(")


@pytest.fixture
def at_work(lab, open_notebook):
    """A function that opens a notebook whose run is at work, saved with a chart in its snapshot."""
    shutil.copy(Path(__file__).with_name("fake_run.py"), lab.root)

    def start(call: str):
        notebook = open_notebook(CELL, call)
        notebook.run_all()
        notebook.page.locator(".gpt-main canvas").wait_for()
        notebook.page.wait_for_function("() => document.querySelector('.gpt-under .jp-RenderedHTML img')")
        [output] = notebook.saved()["cells"][1]["outputs"]
        assert set(output["data"]) == {"text/plain", "text/html"}
        assert SAVED in "".join(output["data"]["text/plain"])
        return notebook

    return start


def shown(notebook) -> str:
    """The text of what is seen of the cell's output."""
    text = "\n".join(notebook.page.locator(".jp-OutputArea-output:visible").all_inner_texts())
    assert not any(words in text for words in BROKEN), text
    return text


def load_again(notebook) -> None:
    page = notebook.page
    page.reload()  # what is there first: the saved output, or the live view that is drawn over it
    page.locator(".jp-OutputArea-output:visible").or_(page.locator(".gpt-over")).first.wait_for()


def test_a_page_loaded_again_in_a_foreground_run_shows_the_snapshot_then_the_report(at_work, tmp_path):
    end = tmp_path / "end"
    notebook = at_work(f"follow(FakeRun(600, steps=4000, until={str(end)!r}), run_report)")
    load_again(notebook)
    assert "storyteller: pretrain, running" in shown(notebook) and SAVED in shown(notebook)
    end.touch()
    notebook.page.get_by_text("storyteller: pretrain, finished").wait_for(timeout=90_000)
    notebook.page.locator(".gpt-run").wait_for(state="detached")
    assert SAVED not in shown(notebook)
    [output] = notebook.saved()["cells"][1]["outputs"]
    assert set(output["data"]) == {"text/plain", "text/html", MIME} and "<span class=" not in json.dumps(output)


def test_a_page_loaded_again_shows_a_background_run_live_and_its_report(at_work):
    notebook = at_work("follow(FakeRun(600, steps=4000), run_report, background=True)")
    load_again(notebook)
    notebook.page.locator(".gpt-over .gpt-main canvas").wait_for()
    notebook.page.get_by_role("button", name="Stop", exact=True).click()
    notebook.page.get_by_text("storyteller: pretrain, stopped").wait_for()
    [output] = notebook.saved()["cells"][1]["outputs"]
    assert set(output["data"]) == {"text/plain", "text/html", MIME}


def test_a_notebook_closed_while_its_run_works_gets_the_report_when_it_is_opened(at_work, tmp_path):
    end = tmp_path / "end"
    call = f"follow(FakeRun(600, steps=4000, until={str(end)!r}), run_report, background=True)"
    notebook = at_work(call)
    page = notebook.page
    address = page.url
    page.goto("about:blank")
    end.touch()
    wait_until(lambda: not end.exists(), 60, "the run to end")
    page.goto(address)
    page.get_by_text("storyteller: pretrain, finished").wait_for()
    assert SAVED not in shown(notebook)


def test_a_card_says_that_its_kernel_is_gone_and_the_notebook_keeps_the_snapshot(at_work):
    notebook = at_work("follow(FakeRun(600, steps=4000), run_report)")
    page = notebook.page
    notebook.command("notebook:restart-kernel")
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.get_by_text("%gpt resume storyteller continues it from its last checkpoint").wait_for()
    buttons = page.locator(".gpt-actions button:visible")
    assert buttons.count() and all(not button.is_enabled() for button in buttons.all())
    notebook.saved()
    load_again(notebook)
    notebook.wait_idle()
    assert SAVED in shown(notebook) and page.locator(".gpt-run").count() == 0


def test_without_trust_and_without_a_kernel_the_snapshot_is_shown(lab, at_work):
    notebook = at_work("follow(FakeRun(600, steps=4000), run_report)")
    untrusted = notebook.path.with_name("untrusted.ipynb")
    written = json.loads(notebook.path.read_text())
    written["cells"][1]["source"] = "1"  # another notebook than the one that was signed
    untrusted.write_text(json.dumps(written))
    notebook.page.goto(f"{lab.url}/lab/tree/{untrusted.name}?token={lab.token}&reset")
    notebook.page.locator(".jp-OutputArea-output img").wait_for()
    assert SAVED in shown(notebook) and notebook.page.locator(".jp-mod-trusted").count() == 0
