"""Launchers: what starts the processes of a run outside of the kernel, and tells whether they live.

A launcher is a module, or an object, with the functions of `Launcher`. It is found by its name: those that ship are
listed here, others by an entry point in the group `jupyter_gpt.launchers`,

    [project.entry-points."jupyter_gpt.launchers"]
    kubernetes = "my_package.kubernetes"

It need not know what a run is. Each rank that it starts reads the run's folder, does its part, and writes there what it
has to tell; stop, pause and sample go through the folder too. Nothing here imports torch.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest

GROUP = "jupyter_gpt.launchers"
SHIPPED = ("processes", "slurm", "ray")  # modules beside this one
HANDLE = "launcher.json"  # in the folder of a run that a launcher holds
FIELDS = {
    **dict.fromkeys(("launcher", "host", "folder", "job", "cluster"), str),
    **dict.fromkeys(("devices", "nodes", "pid"), int),
    "detached": bool,
    "started": int | float,
}
NEEDED = {"processes": ("pid", "folder"), "slurm": ("job", "folder"), "ray": ("pid", "folder")}
SETTINGS = "launchers.json"  # in the store or the user's configuration folder: settings by the name of a launcher
LOGS = "logs"  # in the folder of a run: what its processes and its launcher print


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What is to be started.

    folder: the run's, absolute; all nodes need to see it.  rank: the arguments of Python for one rank, `("-m", …)`; the
    same for each: a rank reads RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them.
    devices: ranks per node.  environment: variables to add to that of each rank.  directory: where the ranks work.
    detached: whether they outlive this kernel.  settings: of the site, and `address` where the user gave one.
    """

    folder: Path
    rank: tuple[str, ...]
    devices: int = 1
    nodes: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path = field(default_factory=Path.cwd)
    detached: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ranks(self) -> int:
        return self.devices * self.nodes

    @property
    def logs(self) -> Path:
        return self.folder / LOGS


class Launcher(Protocol):
    """Starts the ranks of a run, and looks after them. Each function may raise GPTError, one line."""

    def preview(self, launch: Launch) -> str:
        """What `start` would run: a command line, or a script. Starts and writes nothing."""
        ...

    def start(self, launch: Launch) -> dict:
        """Start the ranks and return at once: the handle, JSON that the functions below find them by.

        `write_handle` adds what is the same for all launchers.
        """
        ...

    def stop(self, handle: Mapping[str, Any]) -> None:
        """End all ranks now, without their help; nothing where they have ended."""
        ...

    def alive(self, handle: Mapping[str, Any]) -> bool:
        """Whether the ranks wait to be started, or run. Asked several times a second, from any process."""
        ...

    def logs(self, handle: Mapping[str, Any], folder: Path) -> list[Path]:
        """The files with what ranks and launcher print, that of most interest first; `folder` is the run's."""
        ...


def launcher(name: str) -> Launcher:
    """The launcher of that name. Raises GPTError where there is none, or where what it needs is not installed."""
    from importlib.metadata import entry_points  # slow to import

    others = {each.name: each for each in entry_points(group=GROUP)}
    try:
        if name in SHIPPED:
            module: Any = import_module(f"jupyter_gpt.runs.launchers.{name}")
            return module
        if name in others:
            return others[name].load()
    except ImportError as error:
        raise GPTError(f"--on {name} needs a package that is not installed: {error}") from error
    raise GPTError(f"there is no launcher {name}{nearest(name, [*SHIPPED, *others])}")


def torchrun(launch: Launch, *rendezvous: str) -> list[str]:
    """The command of torch's launcher on one node, which starts `launch.devices` ranks there."""
    module = [sys.executable, "-m", "torch.distributed.run", *rendezvous]
    return [*module, "--nproc-per-node", str(launch.devices), *launch.rank]


def settings_of(name: str) -> dict[str, Any]:
    """What is configured for a launcher: in the store beside the notebook, else in the user's configuration folder."""
    found: dict[str, Any] = {}
    for folder in (store.settings(), store.home()):
        try:
            found |= store.read_json(folder / SETTINGS).get(name, {})
        except (ValueError, TypeError) as error:
            raise GPTError(f"{folder / SETTINGS} is damaged ({error}): mend or delete it") from error
    return found


def configure(name: str, changes: Mapping[str, str], user: bool = False, afresh: bool = False) -> dict[str, Any]:
    """Keep settings of a launcher, for this folder or for the `user`; an empty value removes one, `afresh` all others.

    A launcher that says in `SETTINGS`, a mapping of names to descriptions, what it takes is told nothing else. Returns
    what is set now. Raises GPTError.
    """
    known = getattr(launcher(name), "SETTINGS", None)
    if known is not None and (odd := next((key for key in changes if key not in known), None)):
        raise GPTError(f"launcher {name} has no setting {odd}{nearest(odd, known)}: there are {', '.join(known)}")
    path = (store.settings() if user else store.home()) / SETTINGS
    settings_of(name)  # raises GPTError for a damaged file
    saved = store.read_json(path)
    own = {**({} if afresh else saved.get(name, {})), **changes}
    saved[name] = {key: value for key, value in own.items() if value != ""}
    store.write_json(path, {key: value for key, value in saved.items() if value})
    return settings_of(name)


def write_handle(name: str, launch: Launch, handle: Mapping[str, Any]) -> dict:
    """Keep the handle in the run's folder, and with it which launcher it is of, how many ranks, since when, and the
    machine that started them."""
    whole = {
        "launcher": name,
        "host": socket.gethostname(),
        "devices": launch.devices,
        "nodes": launch.nodes,
        "detached": launch.detached,
        "started": time.time(),
        **handle,
    }
    store.write_json(launch.folder / HANDLE, whole)
    return whole


def read_handle(folder: Path) -> dict | None:
    """The handle of the run in `folder`; None where no launcher holds it, or the file is damaged."""
    try:
        found = store.read_json(folder / HANDLE, **FIELDS)
    except ValueError:
        return None
    needed = ("launcher", "host", *NEEDED.get(found.get("launcher", ""), ()))
    return found if all(name in found for name in needed) else None


def is_alive(handle: Mapping[str, Any]) -> bool:
    """Whether what a handle is of runs or waits; False too where its launcher is not installed here."""
    try:
        return launcher(handle["launcher"]).alive(handle)
    except GPTError:
        return False
