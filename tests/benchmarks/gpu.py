"""Everything that needs a GPU, by one command that nobody has to watch: first whether it is right, then how fast.

    python tests/benchmarks/gpu.py [--minutes 8] [--out FOLDER]

The tests that need a GPU run first, then the benchmarks beside their peers (pretraining, finetuning, decoding, GRPO),
each in a process of its own with a time limit, so that one that hangs or fails leaves the others their turn. Prints one
table; writes `gpu.json` and what each part printed to FOLDER (default: `$OUT`, or the folder it is run in). A peer that
is not installed is left out. The exit status is 0 if the tests passed, whatever the benchmarks did.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from figures import read, table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TESTS = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
TESTS += ["tests/inference/test_gpu.py", "tests/stages/test_gpu.py"]
PARTS = {  # name: arguments to Python, its share of the time
    "tests": (TESTS, 0.25),
    "pretrain": ([str(HERE / "pretrain_gpu.py")], 0.2),
    "sft": ([str(HERE / "sft_gpu.py")], 0.2),
    "decode": ([str(HERE / "engine_gpu.py")], 0.2),
    "grpo": ([str(HERE / "grpo_gpu.py")], 0.15),
}


def run(name: str, arguments: list[str], seconds: float, folder: Path) -> str:
    """Runs one part with its output in a file; how it ended."""
    began, log = time.monotonic(), folder / f"gpu_{name}.log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            ended = "passed" if process.wait(seconds) == 0 else f"failed ({process.returncode})"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            ended = "out of time"
    print(f"{name}: {ended} after {time.monotonic() - began:.0f} s, see {log.name}", flush=True)
    if ended != "passed":
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        print(*(f"    {line}" for line in lines), sep="\n", flush=True)
    return ended


def measure(parts: dict[str, tuple[list[str], float]], minutes: float, folder: Path) -> dict:
    """How each part ended and all their figures. What one part leaves of its time, the next may use."""
    left, ended, figures = 60 * minutes, {}, []
    for at, (name, (arguments, share)) in enumerate(parts.items()):
        began, path = time.monotonic(), folder / f"gpu_{name}.json"
        path.unlink(missing_ok=True)
        writes = [] if name == "tests" else ["--json", str(path)]
        to_come = sum(share for _, share in list(parts.values())[at:])
        ended[name] = run(name, arguments + writes, left * share / to_come, folder)
        figures += read(path)
        left -= time.monotonic() - began
    return {"ended": ended, "figures": [asdict(figure) for figure in figures], "table": table(figures)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    given = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit("skipped: there is no GPU here")
    given.out.mkdir(parents=True, exist_ok=True)
    properties = torch.cuda.get_device_properties(0)
    machine = f"{properties.name}, {properties.total_memory >> 30} GiB, torch {torch.__version__}"
    print(machine, flush=True)
    found = measure(PARTS, given.minutes, given.out)
    print(found.pop("table"))
    (given.out / "gpu.json").write_text(json.dumps({"machine": machine, **found}, indent=1) + "\n", encoding="utf-8")
    sys.exit(found["ended"]["tests"] != "passed")


if __name__ == "__main__":
    main()
