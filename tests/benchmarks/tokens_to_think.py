"""Tokens to think, and an ensemble of attempts: what both are worth to one small model trained here in about a minute.

    python tests/benchmarks/tokens_to_think.py [--steps 800] [--questions 200]

One model learns chains of eight sums and products modulo 100 (`47 a+3 b*7 …`, each operation with a letter to find it by)
in three ways of writing, mixed: the answer at once, after filler dots (as many as the steps take), and after its steps
(`a+3=50 b*7=50 …`). The same weights are then asked in all three ways, greedily: what a transformer computes for one token
is bounded, so only written steps give it room. Then its half-trained self, the run stopped on its way and later resumed, is
sampled at temperature 1: one sample, the majority of 20, and greedy beside them. Everything through `gpt.pretrain` and
`gpt.evaluate`, as a notebook would.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from random import Random

LONG, MODULUS = 8, 100
DIRECT, FILLER, STEPS = "\nAnswer:", "\n{dots}\nAnswer:", "\nThink: "
TEMPLATES = {"think_document": "{question}\nThink: ", "extract_document": "", "stop_document": ""}
STOPS = (0.5, 0.58, 0.66)  # shares of the steps at which it is looked at half-trained
HALF = 0.2  # of one-sample answers right: the vote is measured there


def problem(random: Random) -> tuple[str, str, str]:
    """The question, its steps, its answer."""
    total = random.randrange(MODULUS)
    question, steps = [str(total)], []
    for letter in "abcdefgh"[:LONG]:
        by = random.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, -3, -7, -9))  # the negative ones stand for products
        total = total * -by % MODULUS if by < 0 else (total + by) % MODULUS
        question.append(f"{letter}*{-by}" if by < 0 else f"{letter}+{by}")
        steps.append(f"{question[-1]}={total}")
    return " ".join(question), " ".join(steps), str(total)


def document(index: int, random: Random) -> str:
    question, steps, answer = problem(random)
    ways = (DIRECT, FILLER.format(dots="." * len(steps)), STEPS + steps + "\nAnswer:")
    return f"{question}{ways[(0, 1, 2, 2, 2, 2)[index % 6]]} {answer}"


def accuracy(found) -> str:
    return ", ".join(
        f"{s.technique} {100 * s.accuracy:.1f}% ({100 * s.interval[0]:.1f} to {100 * s.interval[1]:.1f})"
        for s in found.settings
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ["JUPYTER_GPT_HOME"] = tempfile.mkdtemp()
    from jupyter_gpt import gpt
    from jupyter_gpt.session import templates

    random = Random(asked.seed)
    documents = [document(i, random) for i in range(120_000)]
    for name, text in TEMPLATES.items():
        templates.replace("cot", name, text)
    run = gpt.pretrain(
        "sums", {"$documents": 1.0}, tokenizer="char", depth=3, width=96, heads=3, context=192, batch_tokens=192 * 32,
        steps=asked.steps, seed=asked.seed, variables={"documents": documents}, background=True, sample_every=10**9,
        eval_every=10**9,
    )  # fmt: skip
    print(f"{asked.questions} questions, greedy unless it says otherwise", flush=True)
    test = [problem(Random(f"test {i}")) for i in range(asked.questions)]
    thought = [(question, answer) for question, _, answer in test]
    once = {"greedy": {"cot": True, "temperature": 0.0}, "one sample at T=1": {"cot": True, "temperature": 1.0}}
    many = {"majority of 20 at T=1": {"cot": True, "temperature": 1.0, "samples": 20, "vote": True}}
    for share in STOPS:
        while run.step < share * asked.steps and run.alive:
            time.sleep(0.05)
        gpt.stop("sums")
        half = gpt.evaluate(thought, models=["sums"], max_tokens=80, techniques=once)
        print(f"stopped at step {run.step} of {asked.steps}: {accuracy(half)}", flush=True)
        enough = half.settings[1].accuracy >= HALF
        if enough:
            print(accuracy(gpt.evaluate(thought, models=["sums"], max_tokens=80, techniques=many)), flush=True)
        run = gpt.resume("sums", variables={"documents": documents}, background=True)
        if enough:
            break
    run.wait()
    seconds = gpt.runs["sums"].history["seconds"].iloc[-1]
    print(f"{gpt.models['sums'].parameters:,} parameters, trained for {seconds:.0f} s", flush=True)
    short = {"temperature": 0.0, "max_tokens": 6}
    direct = gpt.evaluate([(q + DIRECT, a) for q, _, a in test], models=["sums"], techniques={"direct": short})
    filler = gpt.evaluate([(q + FILLER.format(dots="." * len(s)), a) for q, s, a in test], models=["sums"],
                          techniques={"filler": short})  # fmt: skip
    steps = gpt.evaluate(thought, models=["sums"], max_tokens=80,
                         techniques={"steps": {"cot": True, "temperature": 0.0}})  # fmt: skip
    print("trained, the same weights:", "; ".join(map(accuracy, (direct, filler, steps))))


if __name__ == "__main__":
    main()
