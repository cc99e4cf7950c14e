"""Why a process of a run has failed: a file in the run's `logs/`, and the error that a kernel raises of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import jupyter_gpt
from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs.launchers.launcher import LOGS, launcher

KERNEL = "JUPYTER_GPT_KERNEL"  # of the environment: the process that this one must not outlive, as HOST:PID
OURS = Path(jupyter_gpt.__file__).parent
FULL = 64 << 10  # bytes: of a disk with fewer a run writes no checkpoint and no event
ROOT_CAUSE = re.compile(r"Root Cause.*?rank\s*: (\d+).*?exitcode\s*: (-?\d+)", re.DOTALL)  # torchrun's report
OUT_OF_MEMORY = re.compile(r"oom[-_ ]kill|OOM Killed|Out Of Memory", re.IGNORECASE)  # Slurm's, systemd's, the kernel's


class ProcessFailed(GPTError):
    """A process of a run has failed. `lines` is the traceback that it had, of what the user wrote where that raised."""

    lines: Sequence[str] = ()

    def _render_traceback_(self) -> list[str]:
        return [*self.lines, f"GPTError: {self}"]


def this_process() -> str:
    """What `watch_kernel` knows this process by."""
    return f"{socket.gethostname()}:{os.getpid()}"


def path_of(folder: Path, rank: int) -> Path:
    return folder / LOGS / f"error-{rank}.json"


def write(folder: Path, rank: int, error: BaseException) -> None:
    """Tell the kernels why this rank fails."""
    frames = [[f.filename, f.lineno, f.name] for f in users_frames(error.__traceback__)]
    said = str(error) if isinstance(error, GPTError) else "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, GPTError):
        frames = []
    store.write_json(path_of(folder, rank), {"rank": rank, "error": said, "frames": frames})


def users_frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    """What the user wrote, if that raised: the frames after the last of this package. Of an error of ours all."""
    frames = list(traceback.extract_tb(trace))
    last = max((i for i, f in enumerate(frames) if Path(f.filename).is_relative_to(OURS)), default=-1)
    own = frames[last + 1 :]
    return own if own and "site-packages" not in Path(own[0].filename).parts else frames


def clear(folder: Path) -> None:
    """Forget the errors of an earlier start."""
    for path in (folder / LOGS).glob("error-*.json"):
        path.unlink(missing_ok=True)


def read(folder: Path) -> dict | None:
    """The first error that a rank told, None where none did."""
    found = []
    for path in (folder / LOGS).glob("error-*.json"):
        with suppress(OSError, ValueError):
            found.append((path.stat().st_mtime_ns, store.read_json(path, rank=int, error=str, frames=list)))
    return min(found, key=lambda each: each[0])[1] if found else None


def error_of(name: str, events: Sequence[dict], handle: Mapping[str, Any], folder: Path) -> ProcessFailed:
    """The error of a run whose processes have failed, or are gone without a word."""
    told, several = read(folder), handle["devices"] * handle["nodes"] > 1
    if told:
        lines = told["error"].splitlines() or [""]
        error = ProcessFailed(f"rank {told['rank']}: {lines[-1]}" if several else lines[-1])
        if told["frames"]:  # the notebook knows the lines of its own cells
            stack = traceback.StackSummary.from_list([(file, line, of, None) for file, line, of in told["frames"]])
            error.lines = ["".join(traceback.format_list([*stack])).rstrip(), *lines[:-1]]
        return error
    if events and events[-1].get("error"):
        return ProcessFailed(events[-1]["error"])
    return ProcessFailed(
        f"run {name} was interrupted: {last_words(handle, folder)}. %gpt resume {name} goes on from its last checkpoint"
    )


def last_words(handle: Mapping[str, Any], folder: Path) -> str:
    """How the processes ended, as far as the disk, their exit status and their log tell."""
    with suppress(OSError):
        if shutil.disk_usage(folder).free < FULL:
            return f"the disk of {folder} is full"
    killed = exit_signal(handle)
    with suppress(GPTError, OSError):
        for path in launcher(handle["launcher"]).logs(handle, folder):
            with path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 8000))
                text = file.read().decode(errors="replace")
            if OUT_OF_MEMORY.search(text):
                return "its memory ran out: the system's out-of-memory killer ended it"
            if cause := ROOT_CAUSE.findall(text):
                rank, status = cause[-1]
                return f"rank {rank} {killed_by(-int(status)) if int(status) < 0 else f'ended with status {status}'}"
            lines = [line.strip() for line in text.splitlines() if re.search(r"[^\W\d_]", line)]
            if lines and not killed:
                return f"the last line of {path.name} is {lines[-1]:.120}"
    return f"its process {killed_by(killed) if killed else 'was killed'}"


def exit_signal(handle: Mapping[str, Any]) -> int:
    """The signal that ended a process which this one started; 0 where it is not known."""
    from jupyter_gpt.runs.launchers.processes import started

    process = started(handle)
    return max(0, -(process.poll() or 0)) if process else 0


def killed_by(number: int) -> str:
    """A signal by its name, and what it is most often due to."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"was killed by {name}{', most often because memory ran out' if name == 'SIGKILL' else ''}"
