"""Killed at any call to the file system: a process of its own trains, finetunes or indexes and is killed (SIGKILL) at
its n-th `open` for writing, `os.replace`, `os.mkdir` or `os.fsync` in the store; another goes on.

    python tests/benchmarks/kill.py [--kills 300] [--seed 0]

What the other ends with has to be what an uninterrupted process ends with: the same weights, the same chunks and
vectors. And between the two nothing may be hidden: a model, a run or an index that had the name before is there. Needs
`os.fork`.
"""

from __future__ import annotations

import argparse
import builtins
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

DOCUMENTS = [
    f"The {a} {b} saw {n} small birds and was {c}. It sang."
    for n in range(2, 8)
    for a in ("old", "red", "tall")
    for b in ("fox", "hen")
    for c in ("glad", "sad")
]
CHATS = [{"prompt": f"How many birds, {n}?", "response": f"{n} birds."} for n in range(12)]
TINY = {
    "depth": 1,
    "width": 32,
    "heads": 2,
    "context": 32,
    "vocab_size": 300,
    "batch_tokens": 128,
    "rows": 2,
    "sample_every": 1000,
    "seed": 1,
    "checkpoint_every": 3,
}
VARIABLES = {"docs": DOCUMENTS, "chats": CHATS}


def hooked(root: Path, at: Callable[[], None]) -> None:
    """Have `at` called before each change under `root`."""

    def before(module, name: str, counts: Callable[[tuple, dict], bool]) -> None:
        real = getattr(module, name)

        def call(*args, **more):
            if counts(args, more):
                at()
            return real(*args, **more)

        setattr(module, name, call)

    def inside(path) -> bool:
        return not isinstance(path, int) and Path(os.fsdecode(path)).absolute().is_relative_to(root)

    def writes(args, more) -> bool:
        return inside(args[0]) and bool(set("wax+") & set(str(args[1] if len(args) > 1 else more.get("mode", "r"))))

    for module in (io, builtins):
        before(module, "open", writes)
    for name in ("replace", "mkdir", "unlink", "rmdir"):
        before(os, name, lambda args, more: inside(args[0]))
    before(os, "fsync", lambda args, more: True)


def load() -> None:
    """Import what the jobs need, once for all children: importing starts no thread that a fork would lose."""
    import peft  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401

    import jupyter_gpt.retrieval.search
    import jupyter_gpt.session
    import jupyter_gpt.stages.pretrain_training
    import jupyter_gpt.stages.sft_training  # noqa: F401
    from jupyter_gpt.nn import devices

    devices.peak_flops = lambda *_: None  # else each child measures it for a quarter of a second


def in_child(home: Path, work: Callable, kill_at: int | None = None) -> tuple[int, int]:
    """Do `work(gpt)` in a process of its own: its exit status (-9: killed), and how many changes it made to the
    store.
    """
    counted, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.environ["JUPYTER_GPT_HOME"] = str(home)
            calls = 0

            def at() -> None:
                nonlocal calls
                if calls == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls += 1

            hooked(home, at)
            from jupyter_gpt.session import Session

            work(Session())
            os.write(told, str(calls).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(told)
    with os.fdopen(counted) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), int(said or 0)


def train(start: Callable, name: str) -> Callable:
    """Go on with the run of that name, or start it."""

    def work(gpt) -> None:
        run = gpt.runs.get(name)
        if run is not None and run.step and run.recipe["seed"] == 1 and run.status != "finished":
            gpt.resume(name, variables=VARIABLES)
        else:
            start(gpt)

    return work


def pretrain(gpt) -> None:
    gpt.pretrain("k", {"$docs": 1.0}, variables=VARIABLES, overwrite=True, **{**TINY, "steps": 8})


def sft(gpt) -> None:
    gpt.sft(
        "s",
        {"$chats": 1.0},
        base="base",
        variables=VARIABLES,
        overwrite=True,
        lora=2,
        steps=6,
        seed=1,
        checkpoint_every=2,
    )


def index(gpt) -> None:
    gpt.index("docs", "$docs", embedder="base", chunk_tokens=24, variables=VARIABLES, overwrite=True)


def prepare(gpt) -> None:
    """What was there before: a base, and older things of the names that will be made anew."""
    gpt.pretrain("base", {"$docs": 1.0}, variables=VARIABLES, **{**TINY, "steps": 2})
    gpt.pretrain("k", {"$docs": 1.0}, variables=VARIABLES, **{**TINY, "steps": 2, "seed": 2})
    gpt.sft("s", {"$chats": 1.0}, base="base", variables=VARIABLES, lora=2, steps=1, seed=2)
    gpt.index("docs", "$docs", embedder="base", chunk_tokens=16, variables=VARIABLES)


def whole(gpt) -> None:
    """Raises where something that was there before, or came in its place, is not there whole."""
    for name in ("base", "k", "s"):
        gpt.models.load(name)
    gpt.runs["k"], gpt.runs["s"]
    if gpt.indexes["docs"].search("fox") == []:
        raise RuntimeError("the index finds nothing")


def result(home: Path, kind: str) -> object:
    """What a job leaves, to be compared."""
    if kind != "index":
        return (home / "models" / ("k" if kind == "pretrain" else "s") / WEIGHTS[kind]).read_bytes()
    from jupyter_gpt.retrieval.index import Index

    files = Index(home / "indexes" / "docs")
    with files.open() as db:
        rows = db.execute(
            "SELECT c.text, v.row FROM chunks c JOIN vectors v ON v.hash = c.hash ORDER BY c.text, c.id"
        ).fetchall()
    matrix = files.matrix()
    return [(text, matrix[row].round(4).tolist()) for text, row in rows], files.counts()["pending"]


WEIGHTS = {"pretrain": "model.safetensors", "sft": "adapter_model.safetensors"}
JOBS = {"pretrain": train(pretrain, "k"), "sft": train(sft, "s"), "index": index}


def attack(folder: Path, kills: int, seed: int) -> tuple[int, list[str]]:
    """How many processes were killed, and what was not as it has to be."""
    import torch
    import transformers  # noqa: F401  a child has them from here

    torch.set_num_threads(1)
    draw, faults, killed = random.Random(seed), [], 0
    template = folder / "template"
    if in_child(template, prepare)[0] != 0:
        raise RuntimeError("the store could not be made")
    wanted, calls = {}, {}
    for kind, work in JOBS.items():
        home = folder / kind
        shutil.copytree(template, home)
        status, calls[kind] = in_child(home, work)
        if status != 0:
            raise RuntimeError(f"{kind} failed without a kill")
        wanted[kind] = result(home, kind)
    for number in range(kills):
        kind = list(JOBS)[number % len(JOBS)]
        home, at = folder / "killed", draw.randrange(calls[kind])
        shutil.copytree(template, home)
        status, _ = in_child(home, JOBS[kind], at)
        killed += status == -signal.SIGKILL
        for what, work in (("what was there is not whole", whole), ("it does not go on", JOBS[kind])):
            if in_child(home, work)[0] != 0:
                faults.append(f"{kind} killed at {at} of {calls[kind]}: {what}")
        if result(home, kind) != wanted[kind]:
            faults.append(f"{kind} killed at {at} of {calls[kind]}: the end is another")
        shutil.rmtree(home)
        print(
            f"{number + 1} of {kills}: {kind} at {at} of {calls[kind]}, {len(faults)} faults",
            file=sys.stderr,
            flush=True,
        )
    return killed, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    load()
    with tempfile.TemporaryDirectory() as folder:
        killed, faults = attack(Path(folder), given.kills, given.seed)
    print(f"{killed} processes killed, {len(faults)} faults (seed {given.seed})", *faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
