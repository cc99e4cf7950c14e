"""The live view in JupyterLab: buttons work while the cell runs, and what stays behind is static."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from browser.conftest import wait_until
from jupyter_gpt.report.report import MIME

CELL = "from fake_run import FakeRun, report\nfrom jupyter_gpt.notebook.views.follow import follow"


@pytest.fixture
def fake_run(lab):
    """Puts fake_run.py beside the notebooks."""
    shutil.copy(Path(__file__).with_name("fake_run.py"), lab.root)


def told(record: Path) -> list[str]:
    """What the fake run was told."""
    return json.loads(record.read_text()) if record.exists() else []


def test_buttons_reach_the_run_while_its_cell_blocks_and_a_bundle_stays(open_notebook, fake_run, tmp_path):
    record = tmp_path / "told.json"
    notebook = open_notebook(CELL, f"follow(FakeRun(600, {str(record)!r}), report)")
    page = notebook.page
    notebook.run_all()
    page.get_by_text("5.9M parameters").wait_for()
    page.locator(".gpt-main canvas").wait_for()

    buttons = {"Pause": "pause", "Resume": "unpause", "Sample now": "sample", "Stop": "stop"}
    for label, what in buttons.items():
        page.get_by_role("button", name=label, exact=True).click()
        wait_until(lambda what=what: what in told(record), 60, f"the run to hear {label!r}")
        if what == "sample":
            page.locator(".gpt-texts", has_text="<b>bold</b>").wait_for()
            assert page.locator(".gpt-texts b").count() == 0, "a model's text was taken for HTML"
        if what != "stop":
            assert notebook.running(), "the cell had ended, so the click proves nothing"
            wait_until(lambda: notebook.kernel_status() == "busy", 60, "the status to be that of the cell again")

    page.get_by_text("storyteller: stopped").wait_for()
    notebook.wait_idle()
    saved = notebook.saved()
    outputs = saved["cells"][1]["outputs"]
    assert [set(output["data"]) for output in outputs] == [{"text/plain", "text/html", MIME}]
    assert "".join(outputs[0]["data"]["text/plain"]) == "storyteller: stopped"
    assert "widgets" not in saved["metadata"]


def test_a_background_run_is_shown_after_its_cell_and_replaced_when_it_ends(open_notebook, fake_run):
    notebook = open_notebook(CELL, "follow(FakeRun(600), report, background=True)", "print(6 * 7)")
    page = notebook.page
    notebook.run_all()
    page.get_by_text("5.9M parameters").wait_for()
    notebook.wait_idle()
    assert page.locator(".gpt-run").count() == 1
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("storyteller: stopped").wait_for()
    saved = notebook.saved()
    outputs = saved["cells"][1]["outputs"]
    assert [set(output["data"]) for output in outputs] == [{"text/plain", "text/html", MIME}]
    assert saved["cells"][2]["outputs"][0]["text"] == ["42\n"]


def test_keys_work_the_card_and_not_the_notebook(open_notebook, fake_run):
    notebook = open_notebook(CELL, "follow(FakeRun(600, samples=200), report)")
    page = notebook.page
    notebook.run_all()
    slider = page.get_by_label("Step of the samples shown")
    there = lambda: int(slider.get_attribute("max"))  # noqa: E731
    wait_until(lambda: slider.is_visible() and there() > 0, 60, "samples of two steps")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    shown, before = page.locator(".gpt-sample-step").inner_text(), there()
    wait_until(lambda: there() > before, 60, "the next samples")
    assert page.locator(".gpt-sample-step").inner_text() == shown, "they took the reader away"

    reset = page.get_by_role("button", name="reset zoom")
    page.locator(".gpt-main").focus()
    page.keyboard.press("+")
    assert reset.is_visible()
    page.keyboard.press("Escape")
    assert not reset.is_visible()

    page.get_by_role("button", name="Stop", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_text("storyteller: stopped").wait_for()


def test_a_stop_says_that_it_evaluates_and_a_second_one_skips_that(open_notebook, fake_run, tmp_path):
    record = tmp_path / "told.json"
    notebook = open_notebook(CELL, f"follow(FakeRun(240, {str(record)!r}, steps=4000, closing=600), report)")
    page = notebook.page
    notebook.run_all()
    page.locator(".gpt-main canvas").wait_for()
    page.get_by_text("training loss, mean of last 10 steps").wait_for()
    page.get_by_text(re.compile("^validation loss, step \\d+$")).wait_for()
    for dark in (True, False):
        notebook.theme(dark)
        page.locator(f".gpt-run[data-ground={'dark' if dark else 'light'}]").wait_for()
        assert notebook.flaws(".gpt-run") == []
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("Evaluating the model once before it is kept").wait_for()
    assert page.locator(".gpt-chip").inner_text() == "stopping"
    assert page.get_by_role("button", name="Pause").count() == 0 and notebook.running()
    page.get_by_role("button", name="Skip evaluation").click()
    page.get_by_text("storyteller: stopped").wait_for()
    assert told(record) == ["stop", "stop"]


def test_a_run_that_diverges_cannot_be_overlooked(open_notebook, fake_run):
    notebook = open_notebook(CELL, "follow(FakeRun(600, steps=4000, diverges=True), report)")
    notebook.run_all()
    chip = notebook.page.locator(".gpt-chip", has_text="running, diverged")
    chip.wait_for()
    assert "Step 60: the run has diverged" in notebook.page.get_by_role("alert").inner_text()
