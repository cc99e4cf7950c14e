"""What the live view costs the kernel: the share of one core it takes at 100 steps a second.

    python tests/benchmarks/live_view.py [--seconds 20]

A run that only emits events is followed twice for the same time in a real kernel, without the view and with it, its
messages serialised and sent; the difference of the kernel's own CPU time is the view's. The browser's share is its own
process's, and is not counted here.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import nbclient
import nbformat


class Emitting:
    """A run of 100 steps a second that trains nothing."""

    kind, name, status = "pretrain", "emitting", "running"

    def __init__(self, seconds: float):
        self.steps, self.recipe = int(100 * seconds), {}
        self.events = [
            {
                "event": "start",
                "time": 0.0,
                "parameters": 1,
                "device": "cpu",
                "dtype": "float32",
                "tokens_per_step": 1,
                "steps": self.steps,
                "step": 0,
                "peak_flops": None,
                "flops_per_token": 1.0,
            }
        ]
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self) -> None:
        began = time.monotonic()
        for step in range(1, self.steps + 1):
            self.events.append(
                {
                    "event": "step",
                    "time": 0.0,
                    "step": step,
                    "loss": 3.0,
                    "lr": 0.02,
                    "grad_norm": 1.0,
                    "tokens": step,
                    "seconds": step / 100,
                    "tokens_per_second": 100.0,
                    "mfu": None,
                }
            )
            time.sleep(max(0.0, began + step / 100 - time.monotonic()))


def share(seconds: float, view: bool) -> float:
    """CPU seconds a second of this process while the run is followed."""
    from jupyter_gpt.notebook.views.live import LiveRun

    run = Emitting(seconds)
    widget = LiveRun(run) if view else None
    if widget:  # as a front end that is there
        widget._on_message(widget, {"type": "ready", "page": "benchmark"}, [])
    cpu, wall = time.process_time(), time.monotonic()
    while run.thread.is_alive():
        run.thread.join(0.1)
        if widget:
            widget.pump()
    return (time.process_time() - cpu) / (time.monotonic() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="length of each of the two measurements")
    given = parser.parse_args()
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from live_view import share
share(1, True)
print(share({given.seconds}, False), share({given.seconds}, True))"""
    cell = nbformat.v4.new_code_cell(code)
    nbclient.NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=600).execute()
    without, with_view = map(float, cell.outputs[-1]["text"].split())
    print(
        f"without the view {without:.2%} of a core, with it {with_view:.2%}: the view takes {with_view - without:.2%}"
    )


if __name__ == "__main__":
    main()
