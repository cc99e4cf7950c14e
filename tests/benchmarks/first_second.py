"""What a person waits for in a new kernel: the first token of a pulled model, the first step of a run in its live view,
the first hit of a search.

    python tests/benchmarks/first_second.py [--rounds 5] [--pause 3] [prompt pretrain search]

Each round starts a kernel of its own and runs `%load_ext jupyter_gpt` and the cell in it, as JupyterLab sends them;
times are those at which the messages come, and for busy machines the kernel's processor time. `--pause` is the seconds
between the two: 0 is Run All, a person takes some seconds. It also prints how long imports took, with all that each
imports first.
smollm2-135m-instruct and minilm must have been pulled (`%gpt pull`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from jupyter_client.manager import start_new_kernel

TIMED = ("torch", "transformers", "pandas", "matplotlib", "faiss", "scipy", "sympy", "jupyter_gpt.session")
SPIES = f"""
import sys, time
class _Timed:  # how long each of these imports takes, with all that it imports
    seconds, names = {{}}, {TIMED!r}
    def find_spec(self, name, path=None, target=None):
        if name in self.names and name not in self.seconds:
            from importlib.machinery import PathFinder
            spec = PathFinder.find_spec(name, path)
            run, self.seconds[name] = spec.loader.exec_module, 0.0
            def timed(module, name=name):
                began = time.perf_counter()
                run(module)
                self.seconds[name] = time.perf_counter() - began
            spec.loader.exec_module = timed
            return spec
sys.meta_path.insert(0, _Timed())
"""
REPORT = "import json; print(json.dumps({**_Timed.seconds, 'modules': len(sys.modules)}))"
CLOCK = "print(time.process_time())"
DOCUMENTS = {"leave.md": "Everybody has 28 days of paid leave a year.", "office.md": "The office opens at nine."}
PREPARED = {  # cells of an earlier kernel, not timed
    "search": ["%load_ext jupyter_gpt", "%gpt index docs ./handbook --embedder minilm"],
}
CELLS = {
    "prompt": ["%%prompt smollm2-135m-instruct --max-tokens 8 --temperature 0\nName three colours."],
    "pretrain": [
        "%%corpus bedtime --tokens 614_400\nstories: 3\npython: 1",
        "%%pretrain storyteller --corpus bedtime --depth 4 --steps 600",
    ],
    "search": ['%gpt search docs "How many days of leave do I have?" --k 3'],
}


def reached(cell: str, message: dict) -> str | None:
    """What a message of the cell shows first: "something", or "the result" that the benchmark waits for."""
    kind, content = message["msg_type"], message["content"]
    if kind == "error":
        raise RuntimeError(content["evalue"])
    shown = str(content.get("data", "")) if kind in ("display_data", "update_display_data", "comm_msg") else ""
    if not shown:
        return None
    if cell == "prompt":
        return "the result" if "tokens/s" in shown else "something"
    if cell == "pretrain":
        update = content["data"].get("content", {}) if kind == "comm_msg" else {}
        return "the result" if isinstance(update, dict) and update.get("now") else "something"
    return "the result" if "28 days" in shown else "something"


class Kernel:
    """A new kernel in `folder`."""

    def __init__(self, folder: Path):
        self.began = time.perf_counter()
        self.manager, self.client = start_new_kernel(cwd=str(folder), kernel_name="python3")
        self.started = time.perf_counter() - self.began

    def send(self, source: str) -> str:
        """Sends a cell as JupyterLab does, with its id, for then the cell is drawn while it works."""
        content = {"code": source, "silent": False, "store_history": False, "user_expressions": {}}
        message = self.client.session.msg("execute_request", {**content, "allow_stdin": False, "stop_on_error": True})
        message["metadata"] = {"cellId": "a1b2c3d4"}
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def messages(self, sent: str, seconds: float = 120):
        """The messages that a cell publishes, until it is idle."""
        while True:
            message = self.client.get_iopub_msg(timeout=seconds)
            if message["parent_header"].get("msg_id") != sent:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return
            yield message

    def run(self, source: str) -> str:
        """Runs a cell to its end; what it printed."""
        printed = ""
        for message in self.messages(self.send(source)):
            reached("prompt", message)
            printed += message["content"].get("text", "")
        return printed

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def round_of(cell: str, pause: float, folder: Path) -> dict[str, float]:
    """The seconds of one kernel, by what they went into."""
    kernel = Kernel(folder)
    try:
        kernel.run(SPIES)
        seconds = {"kernel (not counted)": kernel.started}
        began = time.perf_counter()
        kernel.run("%load_ext jupyter_gpt")
        seconds["%load_ext"] = time.perf_counter() - began
        time.sleep(pause)
        worked = float(kernel.run(CLOCK))
        began, first = time.perf_counter(), {}
        for source in CELLS[cell]:
            sent = kernel.send(source)
            for message in kernel.messages(sent):
                if what := reached(cell, message):
                    first.setdefault("something", time.perf_counter() - began)
                    if what == "the result":
                        first.setdefault(what, time.perf_counter() - began)
                        if cell == "pretrain":
                            kernel.manager.interrupt_kernel()
                            break
        if cell == "pretrain":
            for _ in kernel.messages(sent):
                pass
        seconds |= {f"until {what} is shown": first[what] for what in ("something", "the result")}
        seconds["%load_ext and the result"] = seconds["%load_ext"] + first["the result"]
        seconds["processor time of the cell"] = float(kernel.run(CLOCK)) - worked
        seconds |= {f"  {name}": value for name, value in json.loads(kernel.run(REPORT)).items()}
        return seconds
    finally:
        kernel.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.0)
    given = parser.parse_args()
    for cell in given.cells or list(CELLS):
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home)
            os.environ["JUPYTER_GPT_HOME"] = f"{home}/.jupyter_gpt"
            (folder / "handbook").mkdir()
            for name, text in DOCUMENTS.items():
                (folder / "handbook" / name).write_text(text)
            if cell in PREPARED:
                kernel = Kernel(folder)
                for source in PREPARED[cell]:
                    kernel.run(source)
                kernel.close()
            rounds = [round_of(cell, given.pause, folder) for _ in range(given.rounds)]
        print(f"{cell}: median (least) of {given.rounds}, pause {given.pause} s, load {os.getloadavg()[0]:.1f}")
        for what in rounds[0]:
            values = [each.get(what, 0.0) for each in rounds]
            print(f"  {what:36} {statistics.median(values):8.3f} ({min(values):.3f})")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
