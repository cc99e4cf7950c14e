"""The process of a run that a launcher has started; of several, one of its ranks.

    python -m jupyter_gpt.stages.run_process RUN_FOLDER [--shard]

It opens the run's folder, reads what the kernel has sent, and iterates the same generator that a kernel does, on a
worker like the kernel's: what a user wrote is called on the main thread. It goes on from the last checkpoint, if there
is one: a cluster may start a job again. A rank that torchrun has started ends with it, and one whose cell waits for it
ends with that kernel.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, is_lost_rank
from jupyter_gpt.imports import without_garbage_collection
from jupyter_gpt.runs import checkpoint, failure, payload
from jupyter_gpt.runs.control import FolderControl, RanksControl
from jupyter_gpt.runs.events import cut_events
from jupyter_gpt.runs.launchers import launcher

STARTED_AGAIN = "SLURM_JOB_ID" in os.environ  # this job may be, after preemption or the failure of a node
LOCKED = 60.0  # seconds that the kernel may hold the lock while it starts the processes
WATCH = 1.0  # seconds between two looks at the processes that this one must not outlive


def main() -> int:
    """Returns the exit status: 0 where the run has finished or was stopped."""
    parser = argparse.ArgumentParser(prog="python -m jupyter_gpt.stages.run_process")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shard", action="store_true")
    given = parser.parse_args()
    watch_others()
    rank, handle = int(os.environ.get("RANK", "0")), launcher.read_handle(given.folder)
    try:
        train(given.folder, rank, given.shard)
    except BaseException as error:
        traceback.print_exc()
        if handle and launcher.read_handle(given.folder) is None:  # an older run has its name again
            store.write_json(given.folder / launcher.HANDLE, handle)
        if not is_lost_rank(error):
            failure.write(given.folder, rank, error)
        return 1
    return 0


def train(folder: Path, rank: int, shard: bool) -> None:
    """The rank's part of the run, to its end."""
    variables, newest = payload.read(folder), checkpoint.latest(folder / "checkpoints")
    ranks = joined(shard)  # so all have read what the kernel has sent, and which checkpoint there is
    if rank == 0:
        if not STARTED_AGAIN:
            payload.remove(folder)
        take_lock(folder)
        if (folder / "events.jsonl").exists():
            cut_events(folder / "events.jsonl", checkpoint.step_of(newest))
    elif ranks is not None and not ranks.await_prepared():
        return
    with without_garbage_collection():
        from jupyter_gpt.runs.worker import worker
        from jupyter_gpt.session import gpt
        from jupyter_gpt.stages.launch import job
        from jupyter_gpt.stages.stage import stage
    run = gpt.runs[folder.name]
    if ranks is None:
        run.control = FolderControl(folder)
        signal.signal(signal.SIGTERM, lambda *_: run.halt())
    else:
        run.control = control = RanksControl(folder, ranks)
        signal.signal(signal.SIGTERM, lambda *_: control.asked.stopping.set())
    recipe = stage(run.kind).RECIPE.from_dict(run.recipe)
    run.job = worker("torch").submit(job(gpt, run, recipe, variables, resuming=newest is not None))
    run.wait()
    if rank == 0 and run.status == "finished":
        payload.remove(folder)
    if ranks is not None:
        ranks.leave()


def joined(shard: bool):
    """The ranks that this process is one of; None where it is alone. Raises GPTError where they do not meet."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from jupyter_gpt.nn import distributed

    return distributed.start(shard)


def take_lock(folder: Path) -> None:
    """The lock of the run's name, once the kernel that starts this process has let it go."""
    until = time.monotonic() + LOCKED
    while True:
        try:
            store.lock(folder, f"{folder.name} is being trained")
            return
        except GPTError:
            if time.monotonic() > until:
                raise


def watch_others() -> None:
    """End this process, at once, when torchrun or the kernel that waits for it is gone: neither can tell it."""
    watched = [os.getppid()] if "RANK" in os.environ else []
    host, _, kernel = os.environ.get(failure.KERNEL, "").rpartition(":")
    if host == socket.gethostname():
        watched.append(int(kernel))
    if "RANK" in os.environ and sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while all(map(lives, watched)):
            time.sleep(WATCH)
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    if watched:
        threading.Thread(target=watch, name="jupyter_gpt-watch", daemon=True).start()


def lives(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main())
