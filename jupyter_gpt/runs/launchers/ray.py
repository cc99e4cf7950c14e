"""Ray: a run's ranks on the workers of Ray Train's `TorchTrainer`, which Ray places and, where one is lost, restarts.

Ray is driven from a process of its own session (`ray_driver.py`): an interrupt would abort the run (ray#53600), and
what workers print would land in whatever cell runs (ipykernel#1370). `--on ray` is the cluster in RAY_ADDRESS, the one
that `ray start` has started on this machine, or one of this machine alone that ends with the run; `--on ray:ADDRESS`
one that is there.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs.launchers import node, processes
from jupyter_gpt.runs.launchers.launcher import LOGS, Launch

SETTINGS = {
    "address": "address of the cluster, where --on ray:ADDRESS gives none",
    "cpus": "CPUs of each worker (default: 1)",
    "gpus": "yes or no, whether each worker has a GPU (default: if the cluster has that many)",
    "placement": "PACK, SPREAD, STRICT_PACK or STRICT_SPREAD (default: PACK)",
    "restarts": "how often Ray restarts lost workers, from the last checkpoint (default: 2)",
}
SPEC = "JUPYTER_GPT_RAY"  # of the environment of the driver: what it is to do
LOG = "ray.log"
stop, alive = processes.stop, processes.alive  # of the driver; Ray ends what belongs to it


def preview(launch: Launch) -> str:
    """The driver's command, and what it asks Ray for."""
    asked = {key: value for key, value in spec(launch, "").items() if key in ("address", "workers", *SETTINGS)}
    return f"{shlex.join(command(launch))}  # {json.dumps(asked)}"


def command(launch: Launch) -> list[str]:
    """Raises GPTError where Ray is not installed."""
    if find_spec("ray") is None:
        raise GPTError("--on ray needs Ray: pip install 'jupyter_gpt[ray]'")
    return [sys.executable, "-m", "jupyter_gpt.runs.launchers.ray_driver", str(launch.folder)]


def spec(launch: Launch, token: str) -> dict[str, Any]:
    """The settings of the driver and the workers. Raises GPTError for a setting that must be a number and is not."""
    site = launch.settings
    try:
        numbers = {"cpus": float(site.get("cpus", 1)), "restarts": int(site.get("restarts", 2))}
    except ValueError as error:
        raise GPTError(f"a setting of launcher ray is not a number: {error}") from error
    return {
        "address": site.get("address") or os.environ.get("RAY_ADDRESS") or "",
        "workers": launch.ranks,
        "gpus": site.get("gpus"),
        "placement": site.get("placement", "PACK"),
        **numbers,
        "rank": list(launch.rank),
        "environment": dict(launch.environment),
        "directory": str(launch.directory),
        "token": token,
        "versions": node.versions(),
    }


def start(launch: Launch) -> dict:
    told = json.dumps(spec(launch, node.token(launch.logs)))
    for path in launch.logs.glob("ray-*"):
        path.unlink()
    return processes.spawn(command(launch), launch, {**launch.environment, SPEC: told}, LOG)


def logs(handle: Mapping[str, Any], folder: Path) -> list[Path]:
    """What ranks print, if they began; and what Ray does."""
    return [*sorted((folder / LOGS).glob("ray-rank-*.log")), folder / LOGS / LOG]
