"""Everything that needs a GPU, by one command that nobody has to watch: first whether it is right, then how fast.

    python tests/benchmarks/gpu_all.py [--minutes 9] [--out FOLDER]

The tests of the CUDA path run first, then the three benchmarks beside their peers, each in a process of its own with a
time limit, so that one that hangs or fails leaves the others their turn. What each printed goes to FOLDER (default:
`$OUT`, or the folder it is run in) as it comes; a line each says how it ended. Exit status: how many failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = [
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "tests/inference/test_gpu.py",
    "tests/stages/test_cuda_paths.py",
]
PARTS = [  # what, its arguments to Python, its share of the time
    ("tests", TESTS, 0.25),
    ("pretrain", [str(HERE / "pretrain_gpu.py")], 0.25),
    ("sft", [str(HERE / "sft_gpu.py")], 0.25),
    ("engine", [str(HERE / "engine_gpu.py")], 0.25),
]


def run(what: str, arguments: list[str], seconds: float, folder: Path) -> bool:
    """Runs one part with its output in a file; whether it ended well in time."""
    began, log = time.monotonic(), folder / f"gpu_{what}.log"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=HERE.parents[1], stdout=file, stderr=subprocess.STDOUT, text=True
        )
        try:
            ended = "passed" if process.wait(seconds) == 0 else f"failed ({process.returncode})"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            ended = "out of time"
    print(f"{what}: {ended} after {time.monotonic() - began:.0f} s, see {log.name}", flush=True)
    print(*(f"    {line}" for line in log.read_text(encoding="utf-8").splitlines()[-12:]), sep="\n", flush=True)
    return ended == "passed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    given = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit("skipped: there is no GPU here")
    given.out.mkdir(parents=True, exist_ok=True)
    properties = torch.cuda.get_device_properties(0)
    print(f"{properties.name}, {properties.total_memory >> 30} GiB, torch {torch.__version__}", flush=True)
    left, failed = 60 * given.minutes, 0
    for number, (what, arguments, share) in enumerate(PARTS):
        began = time.monotonic()
        later = sum(part[2] for part in PARTS[number:])
        failed += not run(what, arguments, left * share / later, given.out)  # what one leaves over, the next may have
        left -= time.monotonic() - began
    sys.exit(failed)


if __name__ == "__main__":
    main()
