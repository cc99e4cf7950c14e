"""What a node of a cluster makes sure of before its ranks start: it sees the run's folder, and has the same packages.

    python -m jupyter_gpt.runs.launchers.node check FOLDER TOKEN VERSIONS
    python -m jupyter_gpt.runs.launchers.node tell FOLDER TEXT
    python -m jupyter_gpt.runs.launchers.node port

The first prints a line that begins with `PROBLEM`, and fails; the second keeps what was printed as the error of the
run; the third prints a port that is free.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import socket
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jupyter_gpt
from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs.launchers.launcher import LOGS

PROBLEM = "jupyter_gpt: "
TOKEN = "token"  # in the logs of a run: what the kernel has written for all nodes to see
PATIENCE = 10.0  # seconds until a file that one node wrote is seen by another: network file systems cache
PACKAGES = ("torch", "transformers", "peft", "numpy", "safetensors")


def token(logs: Path) -> str:
    """Write a new token into the logs of a run; returns it."""
    logs.mkdir(exist_ok=True)
    made = secrets.token_hex(8)
    store.write_text(logs / TOKEN, made)
    return made


def versions() -> dict[str, str]:
    """Of Python, this package and those that decide what a run computes. They import nothing."""
    found = {"Python": platform.python_version(), "jupyter_gpt": jupyter_gpt.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def problem(folder: Path, token: str, expected: dict[str, str]) -> str | None:
    """Why this node cannot take part, in one line; None if it can."""
    host, path = os.environ.get("SLURMD_NODENAME") or socket.gethostname(), folder / LOGS / TOKEN
    until = time.monotonic() + PATIENCE
    while (seen := text_of(path)) != token and time.monotonic() < until:
        time.sleep(0.2)
    if seen != token:
        return f"node {host} does not see {folder}: the nodes and the notebook need a shared folder"
    own = versions()
    other = [f"{name} {own[name]} instead of {made}" for name, made in expected.items() if own.get(name) != made]
    return f"node {host} has {', '.join(other)}: install the same on all nodes" if other else None


def text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]


def main(arguments: list[str]) -> int:
    from jupyter_gpt.runs import failure

    verb, *rest = arguments
    if verb == "port":
        print(free_port())
        return 0
    folder, rest = Path(rest[0]), rest[1:]
    if verb == "tell":
        said = [line.partition(PROBLEM)[2] for line in rest[0].splitlines() if PROBLEM in line]
        if said and folder.exists():
            failure.write(folder, 0, GPTError(said[0]))
        return 0
    found = problem(folder, rest[0], json.loads(rest[1]))
    if found:
        print(PROBLEM + found, flush=True)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
