"""A detached run in JupyterLab: its kernel is shut down, and another notebook follows, stops and prompts it."""

from __future__ import annotations

import json

from jupyter_gpt.runs.launchers import launcher, processes

TRAIN = (
    "%%pretrain away --depth 2 --width 64 --heads 2 --context 64 --batch-tokens 512 --tokenizer char "
    "--steps 100000 --sample-every 100000 --eval-every 500 --checkpoint-every 10 --detach\nstories: 1"
)


def test_another_notebook_goes_on_with_a_run_whose_kernel_is_gone(open_notebook, lab):
    folder = lab.root / ".jupyter_gpt" / "runs" / "away"

    def last() -> dict:
        path = folder / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return json.loads(lines[-1]) if lines and lines[-1].endswith("}") else {}

    def until(true) -> None:
        for _ in range(600):
            if true():
                return
            first.page.wait_for_timeout(200)
        raise AssertionError(last())

    def left(cell: int) -> str:
        """The first output of a cell of the second notebook."""
        outputs = second.saved()["cells"][cell]["outputs"]
        assert not outputs or "evalue" not in outputs[0], outputs[0]["evalue"]
        parts = outputs[0]["data"]["text/plain"] if outputs and "data" in outputs[0] else outputs and outputs[0]["text"]
        return "".join(parts)

    first = open_notebook("%load_ext jupyter_gpt", TRAIN)
    try:
        first.run_all()
        first.wait_idle()  # the cell has returned
        until(lambda: last().get("step", 0) >= 10)
        first.page.evaluate("window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
        until(lambda: first.kernel_status() is None)
        reached = last()["step"]
        second = open_notebook(
            "%load_ext jupyter_gpt\nfrom jupyter_gpt import gpt",
            "%gpt show away",
            "%%prompt away --step latest --max-tokens 4 --temperature 0\nOnce upon",
            'print(gpt.runs["away"].wait().status)',  # Stop is clicked meanwhile
            "%%prompt away --max-tokens 4 --temperature 0\nOnce upon",
        )
        second.run_all()
        until(lambda: left(2))  # cells that are out of sight are not on the page
        assert last()["step"] > reached
        second.page.get_by_role("button", name="Stop", exact=True).click()
        until(lambda: last().get("event") == "end")
        until(lambda: "away · base model" in left(4) and left(1).startswith("away: pretrain, stopped, "))
    finally:
        processes.stop(launcher.read_handle(folder) or {})
    assert last()["status"] == "stopped"
    assert "away.step-" in left(2) and left(3) == "stopped\n"
