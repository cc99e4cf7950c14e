"""tinyshakespeare by characters: validation loss and time of the recipe people start with, and of ours.

    python tests/benchmarks/shakespeare.py --data tinyshakespeare.txt [--seeds 3] [--ours-only]

Both train about 0.8M parameters on 1.54M characters, and are judged on the whole last tenth of the text in nats. The
peer is a plain GPT-2 (4 layers of 128, context 64, 2000 steps of 12 rows) with AdamW, warm-up and cosine, in fp32: the
recipe a CPU is usually given. Ours is what this cell does, whole, with its preparation, samples and checkpoints:

    %%pretrain shakespeare --tokenizer char --width 128 --heads 4 --mlp 344 --context 256 --batch-tokens 2048 --steps
    750 tinyshakespeare.txt

Turn by turn in one process, so that a change in the machine's load meets both. Wall seconds and, beside them, processor
seconds: on a machine that others use only these compare, and only with OMP_NUM_THREADS=1 in the environment.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from peers import PlainGPT

OURS = {"tokenizer": "char", "width": 128, "heads": 4, "mlp": 344, "context": 256, "batch_tokens": 2048, "steps": 750}
CONTEXT, ROWS, STEPS = 64, 12, 2000


def peer(text: str, seed: int) -> tuple[float, int]:
    """Validation loss and parameters of the plain recipe."""
    torch.manual_seed(seed)
    table = {c: i for i, c in enumerate(sorted(set(text)))}
    data = torch.tensor([table[c] for c in text])
    train, held = data[: int(0.9 * len(data))], data[int(0.9 * len(data)) :]
    model = PlainGPT(len(table), CONTEXT, 4, 128, 4)
    optimizer = model.adamw(1e-3, (0.9, 0.99), 0.1)
    for step in range(STEPS):
        warm, cosine = (step + 1) / 100, 0.55 + 0.45 * math.cos(math.pi * max(0, step - 100) / (STEPS - 100))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(warm, cosine)
        rows = torch.stack([train[i : i + CONTEXT + 1] for i in torch.randint(len(train) - CONTEXT, (ROWS,))])
        model(rows[:, :-1], rows[:, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    rows = held.unfold(0, CONTEXT + 1, CONTEXT)
    with torch.no_grad():
        losses = [float(model(r[:, :-1], r[:, 1:])) * len(r) for r in rows.split(128)]
    return sum(losses) / len(rows), sum(p.numel() for p in model.parameters())


def ours(path: str, seed: int) -> tuple[float, int]:
    """Validation loss and parameters of ours, through the door the cell uses."""
    from jupyter_gpt import gpt

    run = gpt.pretrain(
        f"shakespeare-{seed}", {path: 1.0}, seed=seed, eval_every=10**6, eval_tokens=10**6, sample_every=10**6, **OURS
    )
    start = next(e for e in run.events if e["event"] == "start")
    losses = [e for e in run.events if e["event"] == "evaluation"]
    assert start["steps"] * start["tokens_per_step"] <= STEPS * ROWS * CONTEXT
    return losses[-1]["val_loss"], start["parameters"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="tinyshakespeare.txt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ours-only", action="store_true")
    given = parser.parse_args()
    if not given.data:
        print("skipped: give the text with --data tinyshakespeare.txt")
        return
    path = str(Path(given.data).absolute())
    text = Path(path).read_text(encoding="utf-8")
    contestants = {"ours": lambda seed: ours(path, seed)}
    if not given.ours_only:
        contestants = {"peer": lambda seed: peer(text, seed)} | contestants
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the start")
    results: dict[str, list] = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory() as home:
        os.environ["JUPYTER_GPT_HOME"] = home
        for seed in range(given.seeds):
            for name, run in contestants.items():
                wall, cpu = time.perf_counter(), time.process_time()
                loss, parameters = run(seed)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                results[name].append((loss, wall, cpu))
                print(
                    f"{name}, seed {seed}: {parameters:,} parameters, validation loss {loss:.4f}, "
                    f"{wall:.0f} s wall, {cpu:.0f} s of processor",
                    flush=True,
                )
    means = {name: np.mean([r[0] for r in runs]) for name, runs in results.items()}
    print("mean validation loss: " + ", ".join(f"{name} {loss:.4f}" for name, loss in means.items()) + " (owed 1.65)")
    if "peer" in results:
        for i, what in ((1, "wall"), (2, "processor")):
            ratio = statistics.median(o[i] / p[i] for o, p in zip(results["ours"], results["peer"], strict=True))
            print(f"{what} time, ours over the peer's: {ratio:.2f} (owed: at most 1)")
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
