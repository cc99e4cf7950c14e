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
import threading
import time
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs import failure, payload
from jupyter_gpt.runs.events import read_events
from jupyter_gpt.runs.launchers import node
from jupyter_gpt.runs.launchers.launcher import LOGS
from jupyter_gpt.runs.launchers.ray import SPEC

STARTED = "ray-started"  # in the logs: the ranks were started before, so that this is a restart
WATCH = 1.0  # seconds between two looks at the kernel
GRACE = 3.0  # seconds that the first rank may take to tell the end, after another has failed to part from it
STORE = 128 << 20  # bytes of the object store of a local cluster: nothing goes through it


def main() -> int:
    """Returns the exit status."""
    folder, spec = Path(sys.argv[1]), json.loads(os.environ.pop(SPEC))
    end_with_the_kernel()
    try:
        drive(folder, spec)
    except BaseException as error:
        traceback.print_exc()
        if failure.read(folder) is None:
            said = [line.partition(node.PROBLEM)[2] for line in str(error).splitlines() if node.PROBLEM in line]
            failure.write(folder, 0, GPTError(said[0]) if said else error)
        return 1
    return int(failure.read(folder) is not None)


def end_with_the_kernel() -> None:
    """Watch the kernel of a cell that waits for the run: when it is gone, this process ends, and a local cluster."""
    host, _, kernel = os.environ.get(failure.KERNEL, "").rpartition(":")
    if host != socket.gethostname():
        return

    def watch() -> None:
        while psutil.pid_exists(int(kernel)) and psutil.Process(int(kernel)).status() != psutil.STATUS_ZOMBIE:
            time.sleep(WATCH)
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def drive(folder: Path, spec: dict[str, Any]) -> None:
    """Have Ray run the ranks, to their end. Raises whatever goes wrong, GPTError where it is one line."""
    ray, train, torch = (import_module(name) for name in ("ray", "ray.train", "ray.train.torch"))
    address, workers = spec["address"], spec["workers"]
    options: dict[str, Any] = {"runtime_env": {"env_vars": {"PYTHONPATH": spec["environment"].get("PYTHONPATH", "")}}}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": STORE}
        options["num_cpus"] = max(os.cpu_count() or 1, int(workers * spec["cpus"]))
    try:
        ray.init(address=address, log_to_driver=False, **options)
    except Exception as error:  # Ray raises many kinds, and a bare Exception where a local cluster is slow to start
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise GPTError(f"no Ray cluster can be used at {address}: {why[0]}") from error
    there = ray.cluster_resources()
    gpus = spec["gpus"] in ("yes", "true", "1") if spec["gpus"] else there.get("GPU", 0) >= workers
    each = {"CPU": spec["cpus"], **({"GPU": 1} if gpus else {})}
    for kind, count in each.items():
        if there.get(kind, 0) < count * workers:
            raise GPTError(
                f"{workers} workers need {count * workers:g} {kind}s, and the Ray cluster has {there.get(kind, 0):g}"
            )
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
