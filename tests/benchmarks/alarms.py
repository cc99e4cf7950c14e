"""Alarms of a loss over learning rates: which of many tiny runs of each stage raise one, and what they are told at
their end.

    python tests/benchmarks/alarms.py [--seeds 3] [--steps 80]

Each stage trains at its own learning rate and at 10 to 100,000 times that. An ordinary run that raises "diverged", and
one whose loss ends above its start without it, are marked. The models go to a folder of their own.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import warnings

FACTORS = (1, 3, 10, 100, 1000, 10_000, 100_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=80)
    args = parser.parse_args()
    os.environ["JUPYTER_GPT_HOME"] = tempfile.mkdtemp()
    warnings.simplefilter("ignore")
    logging.disable()
    import torch

    from jupyter_gpt import gpt
    from jupyter_gpt.errors import GPTError
    from jupyter_gpt.stages.rankings import Ranking

    torch.set_num_threads(1)
    size = {"depth": 2, "width": 64, "heads": 2, "context": 128, "batch_tokens": 512}
    gpt.pretrain("base", {"stories": 1}, steps=200, **size)
    texts = [
        (f"The {a} {b} was {c}.", "good" if c in ("glad", "kind") else "bad")
        for a in ("old", "red", "tall", "wet")
        for b in ("fox", "hen", "cow", "pig")
        for c in ("glad", "kind", "sad", "cross")
    ]
    for n in range(24):
        told = tuple(
            {"model": "base", "text": f"{text} {n}", "seed": 0} for text in ("saw birds.", "xx xx", "was glad.")
        )
        gpt.rankings.named("taste").add(Ranking(f"Tale {n}.", told, ((0,), (2,), (1,)), time=float(n)))
    stages = {
        "pretrain": lambda **o: gpt.pretrain("run", {"stories": 1}, **size, **o),
        "sft": lambda **o: gpt.sft("run", {"stories-qa": 1}, "base", batch_tokens=512, **o),
        "sft, LoRA": lambda **o: gpt.sft("run", {"stories-qa": 1}, "base", batch_tokens=512, lora=8, **o),
        "classify": lambda **o: gpt.classify("run", texts, "base", **o),
        "reward": lambda **o: gpt.reward("run", rankings="taste", base="base", **o),
    }
    for stage, start in stages.items():
        usual = None
        for factor in FACTORS:
            for seed in range(args.seeds):
                options = {"steps": args.steps, "seed": seed, "overwrite": True}
                try:
                    run = start(**options, **({"lr": usual * factor} if usual else {}))
                    usual = usual or run.recipe["lr"]
                except GPTError as error:
                    print(f"{stage:10} x{factor:<7} seed {seed}: {error}", flush=True)
                    continue
                losses = [event["loss"] for event in run.events if event["event"] == "step"]
                last = sum(losses[-10:]) / len(losses[-10:])
                raised = [(event["step"], event["cause"]) for event in run.events if event["event"] == "warning"]
                gone = "diverged" in run.events[-1]["alarms"]
                odd = gone if factor == 1 else last > 1.2 * losses[0] and not gone
                print(
                    f"{stage:10} x{factor:<7} seed {seed}: {losses[0]:6.3g} to {last:9.3g}, most {max(losses):9.3g}; "
                    f"{'diverged' if gone else 'fine':8} {raised}{'   <-- look' if odd else ''}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
