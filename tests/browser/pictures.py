"""Takes the pictures of the README: cells of the committed notebooks, open in JupyterLab.

python tests/browser/pictures.py [NAME ...]
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from conftest import FLAGS, chromium, running_lab

ROOT = Path(__file__).parents[2]
PICTURES = {  # file: notebook, what the cell contains, or "%gpt claims"
    "tokens": ("00_tour", "%gpt tokens"),
    "compare": ("00_tour", "%%compare"),
    "claims": ("07_retrieval", "%gpt claims"),
    "rag": ("07_retrieval", "%%rag"),
}
IDLE = "() => window.jupyterapp.shell.currentWidget.context.sessionContext.session?.kernel?.status === 'idle'"
TAKEN = "() => document.querySelectorAll('.jp-mod-selected .jp-OutputArea-output').length > 0"


def take(page, notebook: str, text: str, target: Path) -> None:
    """The first code cell that contains a text, with its outputs."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    at = next(i for i, cell in enumerate(cells) if cell["cell_type"] == "code" and text in "".join(cell["source"]))
    page.evaluate(
        "at => { const panel = window.jupyterapp.shell.currentWidget; panel.content.activeCellIndex = at; "
        "return panel.content.scrollToItem(at, 'start'); }",
        at,
    )
    page.wait_for_function(TAKEN)
    page.wait_for_timeout(2000)  # charts draw
    page.add_style_tag(content=".jp-cell-toolbar, .jp-Collapser { display: none !important }")
    page.locator(".jp-Notebook .jp-Cell.jp-mod-selected").screenshot(path=target)


def main() -> None:
    names = sys.argv[1:] or list(PICTURES)
    target = ROOT / ".github" / "pictures"
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home, running_lab(Path(home)) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(playwright), args=FLAGS)
        for name in names:
            notebook, text = PICTURES[name]
            source = ROOT / "notebooks" / f"{notebook}.ipynb"
            shutil.copy(source, server.root)
            page = browser.new_page(viewport={"width": 1000, "height": 1600})
            page.goto(f"{server.url}/lab/tree/{source.name}?token={server.token}&reset")
            page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
            page.wait_for_function(IDLE, timeout=60_000)
            page.evaluate("window.jupyterapp.shell.collapseLeft()")
            take(page, notebook, text, target / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
