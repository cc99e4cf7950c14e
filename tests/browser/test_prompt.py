"""`%%prompt` in JupyterLab: the answer grows as it is written, ■ keeps it, and what stays is static."""

from __future__ import annotations

import time

from jupyter_gpt.report.report import MIME

MODEL = """
import os
os.environ["JUPYTER_GPT_HOME"] = {home!r}
%load_ext jupyter_gpt
from jupyter_gpt import gpt
shape = dict(tokenizer="char", depth=1, width=32, context=8192, batch_tokens=8192, rows=1, steps=1)
gpt.pretrain("fox", {{"$tales": 1}}, variables={{"tales": ["<b>x</b> & the fox "] * 2000}}, **shape)
"""


def until(true, seconds: float) -> None:
    """Waits until `true()`; fails when that takes longer."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s"
        time.sleep(0.05)


def test_an_answer_grows_and_an_interrupt_keeps_it(open_notebook, tmp_path):
    notebook = open_notebook(
        MODEL.format(home=str(tmp_path / "home")),
        "%%prompt fox --max-tokens 8000 --min-tokens 8000 --temperature 1 --out done\nthe fox",
    )
    output = notebook.page.locator(".jp-Cell").nth(1).locator(".jp-OutputArea-output")

    def read() -> str:
        """The output now. Its parts are replaced ten times a second, so no part can be waited for."""
        return "".join(output.all_inner_texts())

    notebook.run_all()
    until(lambda: "fox writes …" in read(), 90)
    lengths = [len(read())]
    for _ in range(3):
        until(lambda: len(read()) > lengths[-1] + 5, 60)
        lengths.append(len(read()))
    assert notebook.running(), "the answer was over, so nothing was seen to grow"
    assert output.locator("b").count() == 0, "a model's text was taken for HTML"

    notebook.command("notebook:interrupt-kernel")
    until(lambda: "interrupted" in read(), 60)
    notebook.wait_idle()
    assert output.locator("b").count() == 0
    [left] = notebook.saved()["cells"][1]["outputs"]
    assert left["output_type"] == "display_data"
    assert set(left["data"]) == {"text/plain", "text/html", MIME}
    metadata = left["metadata"][MIME]
    assert metadata["interrupted"]
    assert len(metadata["samples"][0]["text"]) >= lengths[-1] // 2
    assert "«" in "".join(left["data"]["text/plain"])
