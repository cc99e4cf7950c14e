"""The live view in JupyterLab: buttons work while the cell runs, and what stays behind is static."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from browser.conftest import wait_until
from jupyter_gpt.report.report import MIME

CELL = "from fake_run import FakeRun, report\nfrom jupyter_gpt.notebook.views.follow import follow"


@pytest.fixture
def fake_run(lab):
    """Puts fake_run.py beside the notebooks."""
    shutil.copy(Path(__file__).with_name("fake_run.py"), lab.root)


def told(record: Path) -> dict[str, float]:
    """When the fake run was told each thing, in unix seconds."""
    return dict(json.loads(record.read_text())) if record.exists() else {}


def test_buttons_reach_the_run_while_its_cell_blocks_and_a_bundle_stays(open_notebook, fake_run, tmp_path):
    record = tmp_path / "told.json"
    notebook = open_notebook(CELL, f"follow(FakeRun(8, {str(record)!r}), report)")
    page = notebook.page
    notebook.run_all()
    page.get_by_text("5.9M parameters").wait_for(timeout=20_000)
    page.locator(".gpt-main canvas").wait_for()

    clicks = {}
    buttons = {"Pause": "pause", "Resume": "unpause", "Sample now": "sample", "Stop": "stop"}
    for label, what in buttons.items():
        page.get_by_role("button", name=label, exact=True).click()
        clicks[what] = time.time()
        page.wait_for_timeout(1000)
        assert what in told(record), f"the run never heard {label!r}"
        if what == "sample":
            assert page.locator(".gpt-texts b").count() == 0, "a model's text was taken for HTML"
            assert "<b>bold</b>" in page.locator(".gpt-texts").inner_text()
        if what != "stop":
            assert notebook.running(), "the cell had ended, so the click proves nothing"
            wait_until(lambda: notebook.kernel_status() == "busy", 5, "the status to be that of the cell again")
    late = {what: told(record)[what] - at for what, at in clicks.items()}
    assert max(late.values()) < 1, late

    page.get_by_text("storyteller: stopped").wait_for(timeout=5000)
    notebook.wait_idle()
    saved = notebook.saved()
    outputs = saved["cells"][1]["outputs"]
    assert [set(output["data"]) for output in outputs] == [{"text/plain", "text/html", MIME}]
    assert "".join(outputs[0]["data"]["text/plain"]) == "storyteller: stopped"
    assert "widgets" not in saved["metadata"]


def test_a_background_run_is_shown_after_its_cell_and_replaced_when_it_ends(open_notebook, fake_run):
    notebook = open_notebook(CELL, "follow(FakeRun(4), report, background=True)", "print(6 * 7)")
    notebook.run_all()
    notebook.page.get_by_text("5.9M parameters").wait_for(timeout=20_000)
    notebook.wait_idle(3)
    assert notebook.page.locator(".gpt-run").count() == 1
    notebook.page.get_by_text("storyteller: finished").wait_for(timeout=15_000)
    saved = notebook.saved()
    outputs = saved["cells"][1]["outputs"]
    assert [set(output["data"]) for output in outputs] == [{"text/plain", "text/html", MIME}]
    assert saved["cells"][2]["outputs"][0]["text"] == ["42\n"]


def test_keys_work_the_card_and_not_the_notebook(open_notebook, fake_run):
    notebook = open_notebook(CELL, "follow(FakeRun(6), report)")
    page = notebook.page
    notebook.run_all()
    slider = page.get_by_label("Step of the samples shown")
    page.locator(".gpt-sample-step", has_text="step 132").wait_for(timeout=20_000)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".gpt-sample-step").inner_text() == "step 66"
    page.wait_for_timeout(1200)  # the next samples arrive and must not take the reader away
    assert page.locator(".gpt-sample-step").inner_text() == "step 66"

    reset = page.get_by_role("button", name="reset zoom")
    page.locator(".gpt-main").focus()
    page.keyboard.press("+")
    assert reset.is_visible()
    page.keyboard.press("Escape")
    assert not reset.is_visible()

    page.get_by_role("button", name="Stop", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_text("storyteller: stopped").wait_for(timeout=2000)


def test_a_stop_says_that_it_evaluates_and_a_second_one_skips_that(open_notebook, fake_run, tmp_path):
    record = tmp_path / "told.json"
    notebook = open_notebook(CELL, f"follow(FakeRun(60, {str(record)!r}, closing=60), report)")
    page = notebook.page
    notebook.run_all()
    page.locator(".gpt-main canvas").wait_for(timeout=20_000)
    page.get_by_text("training loss, mean of last 10 steps").wait_for()
    page.get_by_text("validation loss, step 40", exact=True).wait_for(timeout=20_000)
    for dark in (True, False):
        notebook.theme(dark)
        page.wait_for_timeout(500)
        assert notebook.flaws(".gpt-run") == []
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("Evaluating the model once before it is kept").wait_for(timeout=1000)
    assert page.locator(".gpt-chip").inner_text() == "stopping"
    assert page.get_by_role("button", name="Pause").count() == 0 and notebook.running()
    page.get_by_role("button", name="Skip evaluation").click()
    page.get_by_text("storyteller: stopped").wait_for(timeout=2000)
    assert [what for what, _ in json.loads(record.read_text())] == ["stop", "stop"]


def test_a_run_that_diverges_cannot_be_overlooked(open_notebook, fake_run):
    notebook = open_notebook(CELL, "follow(FakeRun(12, diverges=True), report)")
    notebook.run_all()
    chip = notebook.page.locator(".gpt-chip", has_text="running, diverged")
    chip.wait_for(timeout=20_000)
    assert "Step 60: the run has diverged" in notebook.page.get_by_role("alert").inner_text()
