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

    first = open_notebook("%load_ext jupyter_gpt", TRAIN)
    try:
        first.run_all()
        first.wait_idle(120)  # the cell has returned
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
        second.page.locator(".jp-InputPrompt", has_text="[3]").wait_for(timeout=60_000)
        assert last()["step"] > reached
        second.page.get_by_role("button", name="Stop", exact=True).click()
        until(lambda: last().get("event") == "end")
        second.page.locator(".jp-InputPrompt", has_text="[5]").wait_for(timeout=60_000)
        second.page.get_by_text("away: pretrain, stopped, ").first.wait_for(timeout=60_000)
    finally:
        processes.stop(launcher.read_handle(folder) or {})
    assert last()["status"] == "stopped"
    shown, meanwhile, waited, after = (cell["outputs"] for cell in second.saved()["cells"][1:])
    assert "".join(shown[0]["data"]["text/plain"]).startswith("away: pretrain, stopped, ")
    assert "away.step-" in "".join(meanwhile[0]["data"]["text/plain"])
    assert waited[0]["text"] == ["stopped\n"] and "away · base model" in "".join(after[0]["data"]["text/plain"])
