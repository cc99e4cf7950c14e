"""Pretraining 124M parameters at T 1024 on one GPU: tokens/s of a hand-written, compiled GPT-2 and of ours.

    python tests/benchmarks/pretrain_gpu.py [--steps 6] [--rows 64] [--peer-rows 32]

Both in one process on the same random tokens: the peer as it is usually run (bf16 autocast, torch.compile, fused AdamW,
one optimiser step a batch), ours as `%%pretrain --size`-like shapes run by default (Llama, Muon, 0.5M tokens a step).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from figures import Figure, tell
from peers import PlainGPT

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.recipes import pretraining_recipe
from jupyter_gpt.nn.devices import peak_flops
from jupyter_gpt.nn.optimizer import optimizers
from jupyter_gpt.runs.events import Step
from jupyter_gpt.stages.pretrain_training import Training, build, flops_per_token

T, VOCAB = 1024, 50304


class RandomRows:
    """Rows of random tokens, drawn ahead so that drawing costs nothing."""

    def __init__(self, rows: int = 512):
        self.rows = np.random.default_rng(0).integers(0, VOCAB, (rows, T + 1))

    def batch(self, indices) -> np.ndarray:
        return self.rows[np.asarray(indices) % len(self.rows)]


def peer(rows: int, heads: int, steps: int) -> float:
    """Tokens/s of the peer."""
    torch.manual_seed(0)
    model = PlainGPT(VOCAB, T, 12, 768, heads).cuda()
    fast = torch.compile(model)
    optimizer = model.adamw(6e-4, (0.9, 0.95), 0.1)
    source = RandomRows()
    times = []
    for step in range(steps * 4 + 5):
        batch = torch.from_numpy(source.batch(range(step * rows, (step + 1) * rows))).pin_memory()
        batch = batch.cuda(non_blocking=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = fast(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter())
    return rows * T / float(np.median(np.diff(times[5:])))


def ours(rows: int, steps: int, **options) -> tuple[float, float, int]:
    """Tokens/s, share of the peak, and parameters of ours over whole optimiser steps."""
    recipe = pretraining_recipe(
        {"random": 1.0},
        size="llama-124m",
        steps=steps + 2,
        rows=rows,
        batch_tokens=1 << 19,
        dtype="bfloat16",
        **options,
    )
    model = build(recipe, VOCAB, 0).cuda()
    count = sum(p.numel() for p in model.parameters())
    training = Training(
        recipe=recipe,
        model=model,
        optimizers=optimizers(model, recipe, True),
        rows=RandomRows(),
        flops_per_token=flops_per_token(recipe, model),
        peak_flops=peak_flops("cuda", "bfloat16"),
        compile=True,
    )
    stamps = []
    loop = training.loop()
    for event in loop:
        if isinstance(event, Step):
            torch.cuda.synchronize()
            stamps.append(time.perf_counter())
            if len(stamps) > steps:
                break
    loop.close()
    rate = recipe.batch_tokens / float(np.median(np.diff(stamps)))
    return rate, rate * training.flops_per_token / training.peak_flops, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="timed optimiser steps of 0.5M tokens")
    parser.add_argument("--rows", type=int, default=64, help="our rows a micro-batch")
    parser.add_argument("--peer-rows", type=int, default=32, help="the peer's rows a batch")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: there is no GPU here")
        return
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    theirs = peer(given.peer_rows, 12, given.steps)
    mine, share, count = ours(given.rows, given.steps)
    memory = torch.cuda.max_memory_allocated() / 2**30
    print(f"{given.rows} rows (the peer {given.peer_rows}), {share:.1%} of the peak, {memory:.0f} GiB at most")
    tell([Figure(f"pretraining {count / 1e6:.0f}M at 1,024 tokens", mine, "tokens/s", theirs)], given.json)


if __name__ == "__main__":
    main()
