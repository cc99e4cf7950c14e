"""The process that drives Ray for one run: `python -m jupyter_gpt.runs.launchers.ray_driver RUN_FOLDER`.

Each worker of Ray Train makes sure that its node sees the run's folder and has the same packages, and then runs one
rank as a process of its own: a run needs the main thread of its process, and Ray's workers do not lend theirs. After a
loss Ray starts all workers again, and the run goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs import control, failure, payload
from jupyter_gpt.runs.events import End, Event, Progress, last_of, line_of, read_events
from jupyter_gpt.runs.launchers import node
from jupyter_gpt.runs.launchers.launcher import LOGS
from jupyter_gpt.runs.launchers.ray import SPEC

STARTED = "ray-started"  # in the logs: the ranks were started before, so that this is a restart
WATCH = 1.0  # seconds between two looks at the kernel, the request to stop, and what is free in the cluster
GRACE = 3.0  # seconds that the first rank may take to tell the end, after another has failed to part from it
STORE = 128 << 20  # bytes of the object store of a local cluster: nothing goes through it


def main() -> int:
    """Returns the exit status."""
    folder, spec = Path(sys.argv[1]), json.loads(os.environ.pop(SPEC))
    threading.Thread(target=watch, args=(folder,), daemon=True).start()
    try:
        drive(folder, spec)
    except BaseException as error:
        traceback.print_exc()
        if failure.read(folder) is None:
            said = [line.partition(node.PROBLEM)[2] for line in str(error).splitlines() if node.PROBLEM in line]
            failure.write(folder, 0, GPTError(said[0]) if said else error)
        return 1
    return int(failure.read(folder) is not None)


def watch(folder: Path) -> None:
    """End this process, and a cluster of its own, when the kernel of a cell that waits for the run is gone; or when
    the run is asked to stop while there is no rank that would: before Ray has placed them, or after it has lost them.
    """
    host, _, kernel = os.environ.get(failure.KERNEL, "").rpartition(":")
    while host != socket.gethostname() or lives(int(kernel)):
        time.sleep(WATCH)
        if control.asked(folder)["stop"] and store.lock_holder(folder) is None and not ended(folder):
            last = last_of(read_events(folder / "events.jsonl"), "step")
            stopped = {"status": "stopped", "error": None, "alarms": ()}
            tell(folder, End(step=last.get("step", 0), seconds=last.get("seconds", 0.0), **stopped))
            break
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(0)


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def tell(folder: Path, event: Event) -> None:
    """Write an event of the run, of which no rank is at work."""
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line_of(event, time.time())) + "\n")


def connect(ray: Any, address: str, cpus: int, path: str) -> None:
    """Connect to the cluster at an address; without one, to that which `ray start` has started on this machine and has
    not stopped since, or to a new one of this process. Raises GPTError."""
    current = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray", "ray_current_cluster")
    own = {"include_dashboard": False, "object_store_memory": STORE, "num_cpus": cpus}
    tries = [address] if address else [None, "local"] if current.exists() else ["local"]  # None: the current one
    for each in tries:
        try:
            more = own if each == "local" else {}
            ray.init(address=each, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}}, **more)
            return
        except Exception as error:  # Ray raises many kinds, and a bare Exception where a local cluster starts slowly
            why = str(error).strip().splitlines() or [type(error).__name__]
            if each == tries[-1]:
                raise GPTError(f"no Ray cluster can be used at {each}: {why[0]}") from error


def wait_for_place(ray: Any, folder: Path, needed: Mapping[str, float]) -> None:
    """Return once the cluster has free what the run needs, and tell meanwhile for how much it waits. Raises GPTError
    where it never can."""
    for kind, count in needed.items():
        if ray.cluster_resources().get(kind, 0) < count:
            there = ray.cluster_resources().get(kind, 0)
            raise GPTError(f"the workers need {count:g} {kind}s, and the Ray cluster has {there:g}")
    told = None
    while short := {kind: n for kind, n in needed.items() if ray.available_resources().get(kind, 0) < n}:
        kind, count = next(iter(short.items()))
        free = ray.available_resources().get(kind, 0)
        if told != (told := (kind, free)):
            tell(folder, Progress(f"waiting for {count:g} {kind}s of the Ray cluster", int(free), int(count), "free"))
        time.sleep(WATCH)


def drive(folder: Path, spec: dict[str, Any]) -> None:
    """Have Ray run the ranks, to their end. Raises whatever goes wrong, GPTError where it is one line."""
    ray, train, torch = (import_module(name) for name in ("ray", "ray.train", "ray.train.torch"))
    workers, path = spec["workers"], spec["environment"].get("PYTHONPATH", "")
    connect(ray, spec["address"], max(os.cpu_count() or 1, int(workers * spec["cpus"])), path)
    gpus = ray.cluster_resources().get("GPU", 0) >= workers
    if spec["gpus"]:
        gpus = spec["gpus"] in ("yes", "true", "1")
    each = {"CPU": spec["cpus"], **({"GPU": 1} if gpus else {})}
    wait_for_place(ray, folder, {kind: count * workers for kind, count in each.items()})
    variables = folder / payload.FILE
    told = {**spec, "folder": str(folder), "variables": variables.read_bytes() if variables.exists() else b""}
    trainer = torch.TorchTrainer(
        work,
        train_loop_config=told,
        torch_config=torch.TorchConfig(backend="gloo"),  # of Ray's workers: the ranks have groups of their own
        scaling_config=train.ScalingConfig(
            num_workers=workers, use_gpu=gpus, resources_per_worker=each, placement_strategy=spec["placement"]
        ),
        run_config=train.RunConfig(
            name="ray",
            storage_path=str(folder / LOGS),
            failure_config=train.FailureConfig(max_failures=spec["restarts"]),
        ),
    )
    trainer.fit()
    ray.shutdown()


def work(told: dict[str, Any]) -> None:
    """One worker of Ray: a rank of the run, from its start or its last checkpoint to its end."""
    import torch.distributed as dist

    folder, rank = Path(told["folder"]), dist.get_rank()
    problems: list[Any] = [None] * told["workers"]
    dist.all_gather_object(problems, node.problem(folder, told["token"], told["versions"]))
    if any(problems):
        raise RuntimeError(node.PROBLEM + next(filter(None, problems)))
    meeting: list[Any] = [None, None]
    if rank == 0:
        begins = before(folder, told["variables"])
        meeting = [begins, (import_module("ray").util.get_node_ip_address(), node.free_port())]
    dist.broadcast_object_list(meeting)
    begins, (host, port) = meeting
    if not begins:
        return
    own = {"MASTER_ADDR": host, "MASTER_PORT": str(port), **told["environment"]}
    with (folder / LOGS / f"ray-rank-{rank}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *told["rank"]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=told["directory"],
            env={**os.environ, **own},  # Ray has set RANK, LOCAL_RANK and WORLD_SIZE
        )
    status = process.wait()
    until = time.monotonic() + GRACE
    while status and not ended(folder):
        if time.monotonic() > until:
            raise RuntimeError(f"rank {rank} ended with exit status {status}")
        time.sleep(WATCH / 10)


def before(folder: Path, variables: bytes) -> bool:
    """What has to be done before the ranks start, by one for all; returns whether they should: not again where the run
    has ended, or a rank has told why it would fail again."""
    started = folder / LOGS / STARTED
    if not started.exists():
        started.touch()
        return True
    if ended(folder):
        return False
    told = failure.read(folder)
    if told and not (told["frames"] and Path(told["frames"][0][0]).is_relative_to(failure.OURS)):
        return False  # what the user wrote, or cannot have
    failure.clear(folder)  # a rank that has lost another, for example
    payload.write(folder, variables)
    return True


def ended(folder: Path) -> bool:
    """Whether the run has come to its end, or was stopped."""
    path = folder / "events.jsonl"
    events = read_events(path) if path.exists() else []
    return bool(events) and events[-1]["event"] == "end" and events[-1]["status"] != "failed"


if __name__ == "__main__":
    sys.exit(main())
