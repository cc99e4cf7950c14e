"""Slurm: a batch job with torch's launcher (torchrun) on each node, whose ranks meet by c10d rendezvous.

The script stands in the run's folder, which all nodes have to see. The ranks get the environment of the notebook, as
sbatch passes it on, but without the variables of a job that the notebook itself may run in.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs import control
from jupyter_gpt.runs.launchers import node
from jupyter_gpt.runs.launchers.launcher import LOGS, Launch, torchrun

SETTINGS = {
    "partition": "partition of the jobs",
    "account": "account that they are charged to",
    "qos": "quality of service",
    "time": "time limit, such as 2-00:00:00",
    "cpus": "CPUs for each device (default: 4 beside a GPU, else 1)",
    "gpus": "yes or no, whether the devices are GPUs (default: what sinfo tells of the partition)",
    "options": "further options of sbatch, such as --mem=200G --exclusive",
    "setup": "shell commands before the ranks start, such as module load cuda",
    "image": "container image of the ranks, by Pyxis",
    "python": "the nodes' Python (default: this one)",
}
SCRIPT, LOG = "slurm.sh", "slurm.log"
FRESH = 2.0  # seconds that an answer of squeue is used: controllers are busy
PATIENCE = 30.0  # seconds for a command of Slurm
ALIVE = (
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "COMPLETING",
    "SUSPENDED",
    "STAGE_OUT",
    "SIGNALING",
    "RESIZING",
    "STOPPED",
    "REQUEUE",
    "PREEMPTED",
)
INHERITED = ("SLURM_", "SBATCH_", "SRUN_", "PMI", "PMIX_")  # of a job that the notebook runs in
_states: dict[str, tuple[float, str]] = {}  # of each job: when it was asked for, and the answer


def preview(launch: Launch) -> str:
    """The script."""
    return script(launch, "TOKEN")


def script(launch: Launch, token: str) -> str:
    """Raises GPTError where Slurm is not installed."""
    need("sbatch")
    site = launch.settings
    gpus = has_gpus(site)
    cpus = int(site.get("cpus") or (4 if gpus else 1))
    options = {
        "job-name": launch.folder.name,
        "nodes": launch.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cpus * launch.devices,
        **({"gpus-per-node": launch.devices} if gpus else {}),
        "chdir": launch.directory,
        "output": str(launch.logs / LOG).replace("%", "%%"),
        "open-mode": "append",
        **{key: site[key] for key in ("partition", "account", "qos", "time") if site.get(key)},
    }
    python = str(site.get("python") or sys.executable)
    module, folder = [python, "-m", "jupyter_gpt.runs.launchers.node"], str(launch.folder)
    check = [*module, "check", folder, token, json.dumps(node.versions())]
    ranks = torchrun(launch, f"--nnodes={launch.nodes}", "--rdzv-backend=c10d")
    ranks[0] = python
    container = f"--container-image={shlex.quote(str(site['image']))} " if site.get("image") else ""
    srun = f"srun --kill-on-bad-exit=1 --cpus-per-task={cpus * launch.devices} {container}"
    lines = [
        "#!/bin/bash",
        "# All nodes need to see the folder of the run: it has this script, the checkpoints and the log.",
        *(f"#SBATCH --{key}={shlex.quote(str(value))}" for key, value in options.items()),
        "#SBATCH --requeue",  # after preemption or the failure of a node: the ranks go on from the last checkpoint
        *([f"#SBATCH {site['options']}"] if site.get("options") else []),
        *([str(site["setup"])] if site.get("setup") else []),
        f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{cpus}}}",
        "# Each node sees the folder and has the same packages?",
        f"if ! said=$({srun}{shlex.join(check)} 2>&1); then",
        f'    echo "$said" >&2; {shlex.join([*module, "tell", folder])} "$said"; exit 1',
        "fi",
        "# This is the first node: the ranks meet at a free port of it.",
        f"port=$({shlex.join([*module, 'port'])})",
        f'{srun}{shlex.join(ranks[:4])} --rdzv-endpoint="$(hostname):$port" --rdzv-id="$SLURM_JOB_ID" '
        f"{shlex.join(ranks[4:])}",
    ]
    return "\n".join(lines) + "\n"


def start(launch: Launch) -> dict:
    path = launch.folder / SCRIPT
    store.write_text(path, script(launch, node.token(launch.logs)))
    kept = {k: value for k, value in os.environ.items() if k == "SLURM_CONF" or not k.startswith(INHERITED)}
    answer = slurm("sbatch", "--parsable", str(path), env={**kept, **launch.environment})
    job, _, cluster = answer.strip().partition(";")
    return {"job": job, "folder": str(launch.folder), **({"cluster": cluster} if cluster else {})}


def stop(handle: Mapping[str, Any]) -> None:
    slurm("scancel", *where(handle), handle["job"])
    _states.pop(handle["job"], None)


def alive(handle: Mapping[str, Any]) -> bool:
    """A controller that does not answer leaves the answer as it was: jobs survive it. A job that still waits reads no
    request to stop: it is cancelled here."""
    job = handle["job"]
    asked, state = _states.get(job, (0.0, "PENDING"))
    if time.monotonic() - asked > FRESH:
        state = state_of(handle) or state
        _states[job] = time.monotonic(), state
        if state == "PENDING" and control.asked(Path(handle["folder"]))["stop"]:
            stop(handle)
    return state.startswith(ALIVE)


def state_of(handle: Mapping[str, Any]) -> str | None:
    """The state of a job in Slurm's word; None where the controller does not answer."""
    try:
        return slurm(
            "squeue", *where(handle), "--noheader", "--states=all", "--format=%T", f"--jobs={handle['job']}"
        ).strip()
    except GPTError as error:
        return "COMPLETED" if "Invalid job id" in str(error) else None  # it forgets jobs that have ended


def logs(handle: Mapping[str, Any], folder: Path) -> list[Path]:
    """One that a job has never written says so itself: it was cancelled before, or no node of it saw the folder."""
    path, job = folder / LOGS / LOG, handle["job"]
    if not path.exists() and not alive(handle):
        cancelled = (state_of(handle) or "").startswith("CANCELLED")
        why = "was cancelled before it began" if cancelled else f"wrote no log: do the nodes see {folder}?"
        store.write_text(path, f"job {job} {why}\n")
    return [path]


def where(handle: Mapping[str, Any]) -> list[str]:
    return [f"--clusters={handle['cluster']}"] if handle.get("cluster") else []


def has_gpus(site: Mapping[str, Any]) -> bool:
    """Whether the nodes of the partition have GPUs."""
    if site.get("gpus"):
        return str(site["gpus"]).lower() in ("yes", "true", "1")
    own = [f"--partition={site['partition']}"] if site.get("partition") else []
    return "gpu" in slurm("sinfo", "--noheader", "--format=%G", *own)


def need(command: str) -> None:
    if shutil.which(command) is None:
        raise GPTError(f"--on slurm needs {command}: run the notebook on a machine that submits to a Slurm cluster")


def slurm(command: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What a command of Slurm prints. Raises GPTError with its last line where it fails."""
    need(command)
    try:
        ran = subprocess.run(
            [command, *arguments], capture_output=True, text=True, env=env, timeout=PATIENCE, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise GPTError(f"{command} did not answer for {PATIENCE:g} s") from error
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if line.strip()] or [f"exit status {ran.returncode}"]
        raise GPTError(f"{command} failed: {said[0].removeprefix(f'{command}: ').removeprefix('error: ')}")
    return ran.stdout
