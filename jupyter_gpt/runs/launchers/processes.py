"""Processes on this machine: one, or several under torch's own launcher (torchrun), in a session of their own.

Never a fork of the kernel: it may hold a CUDA context, and has threads. In a session of their own neither the kernel's
interrupt nor a logout reaches them.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs.launchers.launcher import LOGS, Launch, torchrun

LOG = "processes.log"
_children: dict[int, subprocess.Popen] = {}  # of this process: each has to be waited for, or its pid stays


def preview(launch: Launch) -> str:
    return shlex.join(command(launch))


def command(launch: Launch) -> list[str]:
    """Raises GPTError for more nodes than this one."""
    if launch.nodes != 1:
        raise GPTError("--nodes is for a cluster: give --on slurm or --on ray too")
    return torchrun(launch, "--standalone") if launch.devices > 1 else [sys.executable, *launch.rank]


def start(launch: Launch) -> dict:
    return spawn(command(launch), launch, {**threads(launch.devices), **launch.environment}, LOG)


def spawn(command: list[str], launch: Launch, environment: Mapping[str, str], log_name: str) -> dict:
    """Start a process in a session of its own; the handle. Its command line has to have the run's folder."""
    launch.logs.mkdir(exist_ok=True)
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    with (launch.logs / log_name).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=launch.directory,
            env={**os.environ, **environment},
            **apart,
        )
    _children[process.pid] = process
    return {"pid": process.pid, "folder": str(launch.folder)}


def threads(devices: int) -> dict[str, str]:
    """The cores shared among the ranks, unless the user has decided that."""
    if devices == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, cores() // devices))}


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def started(handle: Mapping[str, Any]) -> subprocess.Popen | None:
    """The process of a handle, where this one has started it."""
    own = _children.get(handle.get("pid", 0))
    return own if handle.get("host") == socket.gethostname() else None


def found(handle: Mapping[str, Any]) -> Any:
    """The process that was started, or None. A pid is given again: its command line has the run's folder."""
    import psutil

    own = started(handle)
    if own is not None and own.poll() is not None:
        return None
    try:
        process = psutil.Process(handle["pid"])
        if own is not None:  # whose command line is empty for an instant after its start
            return process
        return process if process.status() != psutil.STATUS_ZOMBIE and handle["folder"] in process.cmdline() else None
    except psutil.NoSuchProcess:
        return None


def alive(handle: Mapping[str, Any]) -> bool:
    if handle["host"] != socket.gethostname():  # in a shared folder the lock is seen from here too
        return store.lock_holder(Path(handle["folder"])) is not None
    return found(handle) is not None


def stop(handle: Mapping[str, Any]) -> None:
    import psutil

    process = found(handle) if handle.get("host") == socket.gethostname() else None
    if process is None:
        return
    for each in (process, *process.children(recursive=True)):
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue


def logs(handle: Mapping[str, Any], folder: Path) -> list[Path]:
    return [folder / LOGS / LOG]
