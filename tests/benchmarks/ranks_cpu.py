"""Pretraining on two CPU ranks of one thread each, against one of one thread: how many times as many tokens a second.

    python tests/benchmarks/ranks_cpu.py [--rounds 3] [--steps 8] [--ranks 2] [--batch 16384] [--shard]

A Llama of 5.9M parameters (6 × 256, vocabulary 2048) on rows of 256 random tokens, as `%%pretrain` trains it (Muon with
AdamW; bf16 where the processor has it), started by torchrun as a run is. The batch is the same for both; each rank
takes its share of its micro-batches. Turn by turn, one rank and then all, so that a change in the machine's load meets
both; a turn's figure is the median over its steps, the scaling the median over the rounds. Beside it stands what the
processor time of a step allows: that of one rank over that of the slowest of all, which other jobs disturb less and
which counts no waiting. Owed: 1.7 with two ranks on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
T, VOCAB = 256, 2048
DATA = np.random.default_rng(0).integers(0, VOCAB, (512, T + 1))


class RandomRows:
    def batch(self, indices) -> np.ndarray:
        return DATA[np.asarray(indices) % len(DATA)]


def rank(given: argparse.Namespace) -> None:
    """One rank's steps; its seconds of each, by the wall and by the processor, go to a file of its own."""
    import torch

    from helpers.recipes import pretraining_recipe
    from jupyter_gpt.nn import devices, distributed
    from jupyter_gpt.nn.optimizer import optimizers
    from jupyter_gpt.runs.events import Step
    from jupyter_gpt.stages.pretrain_training import Training, build

    torch.set_num_threads(1)
    ranks = distributed.start(given.shard)
    recipe = pretraining_recipe(
        {"random": 1.0},
        depth=6,
        width=256,
        heads=4,
        context=T,
        vocab_size=VOCAB,
        steps=given.steps + 2,
        rows=8,
        batch_tokens=given.batch,
        dtype=devices.choose_dtype("cpu", 256),
        sample_every=10**6,
    )
    model = build(recipe, VOCAB, 0)
    training = Training(recipe=recipe, model=model, optimizers=optimizers(model, recipe), rows=RandomRows())
    training.spread()
    walls, busy = [], []
    for event in training.loop():
        if isinstance(event, Step):
            float(event.values["loss"])
            walls.append(time.perf_counter())
            busy.append(time.process_time())
    number = ranks.rank if ranks else 0
    figures = [float(np.median(np.diff(stamps)[1:])) for stamps in (walls, busy)]  # the first allocates
    (given.folder / f"{number}.json").write_text(json.dumps([*figures, training.among.get("sent", 0)]))
    if ranks is not None:
        ranks.leave()


def turn(count: int, given: argparse.Namespace) -> tuple[float, float, int]:
    """Seconds a step by the wall and by the processor, of the slowest of so many ranks, and the bytes each sends."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        options = ["--folder", folder, "--steps", str(given.steps), "--batch", str(given.batch)]
        options += ["--shard"] if given.shard and count > 1 else []
        subprocess.run([sys.executable, *torchrun, __file__, *options], env=environment, check=True)
        found = [json.loads(path.read_text()) for path in Path(folder).glob("*.json")]
    assert len(found) == count
    return max(each[0] for each in found), max(each[1] for each in found), found[0][2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16384, help="tokens of a step")
    parser.add_argument("--shard", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder:
        rank(given)
        return
    walls, busy = [], []
    for n in range(given.rounds):
        one, all_ = turn(1, given), turn(given.ranks, given)
        walls.append(one[0] / all_[0])
        busy.append(one[1] / all_[1])
        print(
            f"round {n + 1}: one rank {given.batch / one[0]:,.0f} tokens/s, {given.ranks} ranks "
            f"{given.batch / all_[0]:,.0f}: {walls[-1]:.2f} times; processor seconds a step {one[1]:.2f} and "
            f"{all_[1]:.2f}: {busy[-1]:.2f} times; each sends {all_[2] / 1e6:.1f} MB a step",
            flush=True,
        )
    print(f"scaling {statistics.median(walls):.2f}, by processor time {statistics.median(busy):.2f}")


if __name__ == "__main__":
    main()
