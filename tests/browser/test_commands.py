"""The commands of the JupyterLab extension, by launcher, palette and keyboard."""

from __future__ import annotations

import json
from pathlib import Path

from browser.conftest import OpenNotebook

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TRAIN = (
    "%%pretrain short --depth 1 --width 32 --heads 2 --context 32 --batch-tokens 128 --tokenizer char --steps 2\n"
    "stories: 1"
)

SLOW = """%load_ext jupyter_gpt
import time
from jupyter_gpt.notebook.panel import Panel
state = Panel.state
Panel.state = lambda panel: time.sleep(0.5) or state(panel)"""


def sources(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"]]


def palette(page, words: str) -> None:
    """Runs the command that the palette finds first, with the keyboard alone."""
    page.keyboard.press("Control+Shift+C")
    page.locator("input.lm-CommandPalette-input:visible").fill(words)
    page.locator(".lm-CommandPalette-item.lm-mod-active", has_text=words).wait_for()
    page.keyboard.press("Enter")


def test_notebooks_runs_and_prompts_without_a_mouse(open_notebook, lab):
    notebook = open_notebook(SLOW, TRAIN, "Why is the sky blue?")  # its state comes late
    page = notebook.page
    bindings = page.evaluate("() => window.jupyterapp.commands.keyBindings.map(b => [b.command, b.keys.join('  ')])")
    ours = {keys for command, keys in bindings if command.startswith("jupyter-gpt:")} - {"Enter"}  # in the completer
    assert len(ours) == 3 and not [c for c, keys in bindings if keys in ours and not c.startswith("jupyter-gpt:")]

    label = "name => window.jupyterapp.commands.label('jupyter-gpt:open-example', { name })"
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        title = json.loads(path.read_text("utf-8"))["cells"][0]["source"][0]
        assert page.evaluate(label, path.stem) == f"Open Example: {title.removeprefix('# ').strip()}"

    notebook.run_all()
    notebook.wait_idle()
    page.locator(".jp-Cell .cm-content").nth(2).click()
    page.keyboard.press("Home")
    page.keyboard.press("Shift+End")
    page.keyboard.press("Control+Alt+P")
    page.locator(".jp-Cell.jp-mod-active .cm-focused .cm-content", has_text="%%prompt short").wait_for()
    page.keyboard.type(" Say it in a word.")  # the cursor is at its end
    notebook.saved()
    assert sources(notebook.path)[3] == "%%prompt short\nWhy is the sky blue? Say it in a word."

    page.keyboard.press("Control+Alt+R")
    page.locator(".jp-gpt-report", has_text="short: pretrain, finished").wait_for()

    palette(page, "Open Example: Retrieval: load the working memory")
    page.get_by_role("tab", name="07_retrieval.ipynb").wait_for()
    assert sources(lab.root / "07_retrieval.ipynb") == sources(NOTEBOOKS / "07_retrieval.ipynb")
    OpenNotebook(page, lab.root / "07_retrieval.ipynb").wait_idle()
    (lab.root / "notebooks").mkdir()
    (lab.root / "notebooks" / "05_thinking.ipynb").write_text(notebook.path.read_text())
    palette(page, "Open Example: Tokens to think")
    page.get_by_role("tab", name="05_thinking.ipynb").wait_for()
    assert not (lab.root / "05_thinking.ipynb").exists()  # the one that was there is opened

    notebook.command("launcher:create")
    page.locator(".jp-LauncherCard", has_text="GPT Notebook").press("Enter")
    page.get_by_role("tab", name="Untitled.ipynb").wait_for()
    OpenNotebook(page, lab.root / "Untitled.ipynb").wait_idle()
    made = sources(lab.root / "Untitled.ipynb")
    assert made[0] == "%load_ext jupyter_gpt" and made[1].startswith("%%pretrain storyteller")
