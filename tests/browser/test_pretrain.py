"""A real run in JupyterLab: Stop is clicked while its cell runs, and the model answers in the next cell."""

from __future__ import annotations

import json
import time

from jupyter_gpt.report.report import MIME

TRAIN = (
    "%%pretrain tiny --depth 2 --width 64 --heads 2 --context 64 --batch-tokens 512 --tokenizer char "
    "--steps 100000 --sample-every 100000 --eval-every 500\nstories: 1"
)


def test_stop_ends_a_real_run_and_its_model_answers(open_notebook, lab, record_property):
    notebook = open_notebook(
        "%load_ext jupyter_gpt", TRAIN, "%%prompt tiny --max-tokens 8 --temperature 0\nOnce upon a time"
    )
    notebook.run_all()
    events = lab.root / ".jupyter_gpt" / "runs" / "tiny" / "events.jsonl"

    def last() -> dict:
        lines = events.read_text().splitlines() if events.exists() else []
        return json.loads(lines[-1]) if lines and lines[-1].endswith("}") else {}

    until = time.time() + 90
    while last().get("step", 0) < 20 and time.time() < until:
        notebook.page.wait_for_timeout(200)
    clicked = time.time()
    notebook.page.get_by_role("button", name="Stop", exact=True).click()
    while last().get("event") != "end" and time.time() < clicked + 90:
        notebook.page.wait_for_timeout(50)
    end = last()
    assert end["status"] == "stopped" and 20 <= end["step"] < 100_000
    record_property("seconds from click to stop", end["time"] - clicked)
    print(f"stopped {end['time'] - clicked:.2f} s after the click")
    notebook.wait_idle()
    cells = notebook.saved()["cells"]
    (left,) = cells[1]["outputs"]
    assert set(left["data"]) == {"text/plain", "text/html", MIME}
    answer = "".join(cells[2]["outputs"][0]["data"]["text/plain"])
    assert answer.startswith("<|endoftext|>Once upon a time«") and "tiny · base model" in answer
