"""A tool that writes, in JupyterLab: the running cell shows its call and waits for the click; nothing of the form
stays.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from jupyter_gpt.report.report import MIME

SETUP = """import os; os.environ["JUPYTER_GPT_HOME"] = {home!r}
import jupyter_gpt
from fake_agent import Session
jupyter_gpt.gpt = Session()
%load_ext jupyter_gpt
saved = []
def save(text: str) -> None:
    "Saves a text."
    saved.append(text)
save.writes = True"""
CELL = "%%prompt assistant --react --tools $save --out done\nSave three texts."


def test_a_call_is_approved_edited_and_denied_while_the_cell_runs(lab, open_notebook, tmp_path):
    shutil.copy(Path(__file__).with_name("fake_agent.py"), lab.root)
    notebook = open_notebook(SETUP.format(home=str(tmp_path / "home")), CELL, "print(saved, done.text)")
    page = notebook.page
    notebook.run_all()
    form = page.locator(".gpt-approval")
    form.wait_for()
    words = page.locator(".gpt-arguments")
    page.wait_for_function("() => document.querySelector('.gpt-arguments').value.includes('<b>one</b>')")
    assert form.get_by_text("It makes changes.").count() == 1
    assert notebook.running(), "the cell did not wait"
    assert form.locator(".gpt-name").inner_text() == "Allow save to run?"
    assert form.locator(".gpt-why").inner_text() == "first"
    [question] = [o for o in notebook.saved()["cells"][1]["outputs"] if "Allow save" in str(o["data"])]
    assert "Nobody has answered yet" in "".join(question["data"]["text/plain"])
    assert notebook.flaws(".gpt-run") == []
    page.get_by_role("button", name="Allow", exact=True).click()
    page.wait_for_function("() => document.querySelector('.gpt-arguments').value.includes('two')")
    words.fill('{"txt": "2"}')
    page.get_by_role("button", name="Allow as edited").click()
    form.get_by_text("That does not fit: text: Field required").wait_for()
    words.fill('{"text": "2"}')
    page.get_by_role("button", name="Allow as edited").click()
    page.wait_for_function("() => document.querySelector('.gpt-arguments').value.includes('three')")
    page.get_by_role("button", name="Deny").click()
    form.wait_for(state="detached")
    notebook.wait_idle()
    page.get_by_text("['<b>one</b>', '2'] saved two").wait_for()
    outputs = [set(output["data"]) for output in notebook.saved()["cells"][1]["outputs"]]
    assert {"text/plain", "text/html", MIME} in outputs
    assert all(data in ({"text/plain", "text/html", MIME}, set()) for data in outputs), "a widget stayed"


def test_an_interrupt_ends_the_waiting(lab, open_notebook, tmp_path):
    shutil.copy(Path(__file__).with_name("fake_agent.py"), lab.root)
    notebook = open_notebook(SETUP.format(home=str(tmp_path / "home")), CELL, "print('saved', saved)")
    page = notebook.page
    notebook.run_all()
    page.locator(".gpt-approval").wait_for()
    notebook.command("notebook:interrupt-kernel")
    page.get_by_text("saved []").wait_for()
    page.locator(".gpt-approval").wait_for(state="detached")
