"""A reward model on comparisons of real data: SmolLM2-135M-Instruct with LoRA, accuracy on held-out pairs.

    python tests/benchmarks/reward_real.py --data FILE [--steps N] [--held-out SHARE] [--max-tokens 256] [--batch 8]
    [--lr X]

FILE is JSON. Either pairs with `instruction`, `input`, `chosen`, `rejected`; or questions with `prediction 1` to
`prediction 4` and `preference`, what people said of (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4): 1 or 2 for the
better one, 0 for a tie, which is left out. All pairs of one prompt are on the same side of the split.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from itertools import combinations
from pathlib import Path


def pairs(rows: list[dict]) -> list[tuple[str, str, str]]:
    """(prompt, better, worse) of every comparison in a file of either kind."""
    found = []
    for row in rows:
        if "chosen" in row:
            found.append(("\n".join(filter(None, (row["instruction"], row["input"]))), row["chosen"], row["rejected"]))
            continue
        for (a, b), said in zip(combinations(range(1, 5), 2), row["preference"], strict=True):
            if said:
                better, worse = (a, b) if said == 1 else (b, a)
                found.append((row["question"], row[f"prediction {better}"], row[f"prediction {worse}"]))
    return [pair for pair in found if pair[1] != pair[2]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    for name, default in (("steps", 40), ("max-tokens", 256), ("batch", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--held-out", type=float, default=0.25)
    parser.add_argument("--lr", type=float, default=3e-4)
    args = parser.parse_args()
    os.environ["JUPYTER_GPT_HOME"] = tempfile.mkdtemp()
    from jupyter_gpt import gpt
    from jupyter_gpt.stages.rankings import Ranking

    rankings = gpt.rankings.named("real")
    rankings.write(
        [
            Ranking(
                prompt,
                tuple({"model": "data", "text": text, "seed": 0} for text in (better, worse)),
                ((0,), (1,)),
                by="data",
            )
            for prompt, better, worse in pairs(json.loads(Path(args.data).read_text(encoding="utf-8")))
        ]
    )
    began = time.perf_counter()
    run = gpt.reward(
        "judge",
        rankings="real",
        base="smollm2-135m-instruct",
        steps=args.steps,
        held_out=args.held_out,
        lr=args.lr,
        max_tokens=args.max_tokens,
        batch=args.batch,
        eval_every=args.steps,
    )
    start = next(e for e in run.events if e["event"] == "start")
    first, last = (e for e in run.events if e["event"] == "evaluation")
    table = run.history
    print(
        f"{len(rankings)} pairs, {start['rankings']} to learn from ({args.steps} steps of {args.batch}), "
        f"{last['pairs']} held out, {start['cut']} cut to {args.max_tokens} tokens"
    )
    for name, e in (("before", first), ("after", last)):
        print(
            f"{name}: accuracy {e['accuracy']:.3f} (95% interval {e['low']:.3f} to {e['high']:.3f}), loss "
            f"{e['val_loss']:.3f}"
        )
    print(
        "calibration:",
        [
            [round(x, 3) for x in bin[1:]]
            for bin in next(e for e in reversed(run.events) if e["event"] == "table")["rows"]
        ],
    )
    print(f"{table['tokens_per_second'].median():.0f} tokens/s, {time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
