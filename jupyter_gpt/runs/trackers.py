"""Experiment trackers beside a run: TensorBoard, Weights & Biases, MLflow, Trackio.

Each tracker runs in a separate process (`tracker_process.py`) that reads the run's `events.jsonl`. Stages do not depend
on it, it does not slow the training, and one that fails costs a line. What a run logs to is in its folder, so that
processes of their own and a resumed run log to the same.

The process lives as long as its standard input is open: closing it, with the status of the run in it, tells it to
finish; a kernel that is killed closes it too.
"""

from __future__ import annotations

import importlib.util
import netrc
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

import jupyter_gpt
from jupyter_gpt import store
from jupyter_gpt.errors import GPTError

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
FOLDER = "trackers"  # of a run: what each needs to go on, and what it printed
CHOSEN = "chosen.json"
FINISH = 60.0  # seconds that the end of a run waits for its trackers; they go on by themselves
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
SHORTEST = 6  # characters of a secret


def check(names: Sequence[str]) -> None:
    """Raises GPTError, one line, for a tracker that lacks its library or its key; before anything is made."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise GPTError(f"--log-to {name} needs an extra: pip install 'jupyter_gpt[{name}]'")
    if "wandb" in names and os.environ.get("WANDB_MODE", "offline") in ("online", "shared") and not wandb_key():
        raise GPTError(
            f"WANDB_MODE={os.environ['WANDB_MODE']} needs a key: set WANDB_API_KEY, or unset WANDB_MODE to log offline"
        )
    if "trackio" in names and (space := os.environ.get("TRACKIO_SPACE_ID")):
        from huggingface_hub import get_token

        if not get_token():
            raise GPTError(f"TRACKIO_SPACE_ID={space} needs a token: set HF_TOKEN, or unset it to log on this machine")


def wandb_key() -> bool:
    """Whether there is a key where wandb looks for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def choose(folder: Path, names: Sequence[str]) -> None:
    """Keep in the folder of a run what it logs to."""
    (folder / FOLDER).mkdir(exist_ok=True)
    store.write_json(folder / FOLDER / CHOSEN, {"trackers": list(dict.fromkeys(names))})


def chosen(folder: Path) -> list[str]:
    """What the run in a folder logs to."""
    path = folder / FOLDER / CHOSEN
    try:
        return [name for name in store.read_json(path, trackers=list).get("trackers", ()) if name in get_args(Tracker)]
    except ValueError:
        return []


class Trackers:
    """The trackers of a run that goes on, `begun` of whose events earlier processes have seen."""

    def __init__(self, folder: Path, begun: int):
        self.folder, self.waiting, self.absent = folder, {}, {}
        for name in chosen(folder):
            try:
                self.waiting[name] = started(folder, name, begun)
            except OSError as error:
                self.absent[name] = f"its process could not be started: {error}"

    def failed(self) -> Iterator[tuple[str, str]]:
        """The name of each tracker that has failed since, and what it said."""
        absent, self.absent = self.absent, {}
        yield from absent.items()
        for name, process in list(self.waiting.items()):
            if process.poll() is not None:
                del self.waiting[name]
                if process.returncode:
                    yield name, last_words(self.folder / FOLDER / f"{name}.log", process.returncode)

    def end(self, status: str) -> list[str]:
        """Have them finish, and wait a while; the names of those that take longer, and go on."""
        for process in self.waiting.values():
            with suppress(OSError):  # it is gone
                if process.stdin:
                    process.stdin.write(status.encode())
                    process.stdin.close()
        until = time.monotonic() + FINISH
        while any(process.poll() is None for process in self.waiting.values()) and time.monotonic() < until:
            time.sleep(0.05)
        return [name for name, process in self.waiting.items() if process.poll() is None]


def started(folder: Path, name: str, begun: int) -> subprocess.Popen:
    """The process of a tracker."""
    path = [str(Path(jupyter_gpt.__file__).parents[1]), *(each for each in sys.path if each)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}
    with (folder / FOLDER / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "jupyter_gpt.runs.tracker_process", str(folder.absolute()), name, str(begun)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # an interrupt is for the run
        )


def last_words(log: Path, code: int) -> str:
    """The last line that a process printed, in which nothing is secret."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        lines = []
    return without_secrets(next((line for line in reversed(lines) if line), f"exit status {code}"), os.environ)[:300]


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """A text without the keys that stand in the environment, and without what stands before the host of an address."""
    for name, value in environment.items():
        if SECRET.search(name) and len(value) >= SHORTEST:
            text = text.replace(value, "…")
    return CREDENTIALS.sub("", text)
