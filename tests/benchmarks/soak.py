"""Thirty minutes of mixed cells: what a kernel that is used all day must not collect.

    python tests/benchmarks/soak.py [--minutes 30] [--seed 0]

Comms of widgets, open files, threads and memory are counted after each round of cells, with every model unloaded.
Printed: a line a round; at the end whether they were flat since the second round (memory: within 5%).
"""

from __future__ import annotations

import gc
import random
import sys
import threading
import time

import cells

MORE = {"comms": 0, "files": 2, "threads": 0}  # how many more there may be than after the second round


def sources(draw: random.Random) -> list[str]:
    """A round: every kind of work there is on a small store, in another order each time."""
    import corrupt

    seed = draw.randrange(1000)
    found = [
        "%gpt models",
        "%gpt runs",
        "%gpt indexes",
        "%gpt show story",
        "%gpt show votes",
        "%gpt search docs fox --map none",
        f"%%prompt story --max-tokens 8 --seed {seed}\nThe old fox",
        "%%prompt story --cot --max-tokens 4\nWhy?",
        f"%%prompt story --samples 4 --vote --max-tokens 4 --seed {seed}\nWho?",
        "%%prompt tuned --max-tokens 4\nHow many birds?",
        f"%%pretrain again --overwrite --steps 2 --corpus mix {corrupt.TINY}\n",
        f"%%sft more --overwrite --base story --lora 2 --steps 2 --seed {seed}\n$docs_chat: 1",
        "%gpt index docs $docs --embedder story --chunk-tokens 24 --overwrite",
        "%gpt reward r --base story --rankings votes --steps 1 --overwrite",
        "%%rag docs --model story --max-tokens 4\nWho sang?",
        "%%compare story again --max-tokens 4\nThe",
        "%gpt tokens story 'The old fox'",
        "%gpt load nothing",
        "%%prompt story --regex '('\nx",
    ]
    draw.shuffle(found)
    return found


def counts() -> dict[str, int]:
    """What is held now, in numbers; memory in kilobytes."""
    import comm
    import psutil

    process = psutil.Process()
    manager = comm.get_comm_manager()
    return {
        "comms": len(getattr(manager, "comms", ())),
        "files": process.num_fds(),
        "threads": threading.active_count(),
        "memory": process.memory_info().rss >> 10,
    }


def attack(ip, minutes: float, rounds: int, seed: int, tell=print) -> tuple[int, list[str]]:
    """Rounds until the time is over, at least `rounds`: how many cells ran, and what was not flat."""
    from jupyter_gpt import gpt
    from jupyter_gpt.nn import devices as memory

    draw, ran, faults, seen = random.Random(seed), 0, [], []
    until = time.monotonic() + 60 * minutes
    while len(seen) < rounds or time.monotonic() < until:
        for source in sources(draw):
            done = cells.run(ip, source)
            ran += 1
            if done.fault == "raw":
                faults.append(f"{source.splitlines()[0]!r}: {cells.place(done.error)}")
        for model in [
            each for each in gpt.models.resident.values() if each.name in gpt.models
        ]:  # others are of an earlier folder
            gpt.unload(model.name)
        gc.collect()
        memory.give_back("cpu")
        seen.append(counts())
        tell(f"round {len(seen)}: " + ", ".join(f"{name} {value:,}" for name, value in seen[-1].items()), flush=True)
    first, last = seen[1], seen[-1]
    faults += [
        f"{name}: {first[name]} → {last[name]}" for name, more in MORE.items() if last[name] > first[name] + more
    ]
    if last["memory"] > 1.05 * first["memory"]:
        faults.append(f"memory: {first['memory']:,} → {last['memory']:,} kB")
    return ran, faults


def main() -> None:
    given = cells.options(__doc__, minutes=30.0)
    with cells.store() as (ip, _):
        ran, faults = attack(ip, given.minutes, 3, given.seed)
    print(f"{ran} cells, {len(faults)} faults (seed {given.seed})", *faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
