"""Tokens to think, and an ensemble of attempts: what both are worth to one small model trained here in about a minute.

    python tests/benchmarks/tokens_to_think.py [--steps 800] [--questions 200] [--seed 0]

One model learns to add eight numbers to a start, modulo 100 (`32 a+13 b+59 …`, each with a letter to find it by) in
three ways of writing, mixed: the answer at once, after filler dots (as many as the steps take), and after its steps.
The steps begin at any letter and go round, forwards or backwards (`f32+27=59 e59+46=05 …`): there are sixteen ways to
one answer. The same weights are then asked in all three ways, greedily: what a transformer computes for one token is
bounded, so only written steps give it room. Then its half-trained self, the run stopped on its way and later resumed,
is sampled at temperature 1: one sample, the majority of 20, and greedy beside them. The run is stopped at the first of
its steps, every 20 from `--from` on, at which one sample is right two times in five. Everything through `gpt.pretrain`
and `gpt.evaluate`, as a notebook would.

What lets a model of 0.2M parameters learn this in a minute: each step repeats the number that it starts from, so that
no sum needs anything from further away; queries and keys are normalised (`arch="qwen3"`); and the context holds two
chains, for a row that begins in the middle of one teaches nothing about it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from random import Random

LONG, MODULUS = 8, 100
SUMMANDS = ("+13", "+27", "+38", "+46", "+59", "+64")
DIRECT, FILLER, STEPS = "\nAnswer:", "\n{dots}\nAnswer:", "\nThink: "
TEMPLATES = {"think_document": "{question}\nThink: ", "extract_document": "", "stop_document": ""}
HALF, PROBED = 0.4, 50  # half-trained: of so many questions one sample answers such a share


def problem(random: Random) -> tuple[str, str, str]:
    """The question, its steps, its answer."""
    total, letters = random.randrange(MODULUS), "abcdefgh"[:LONG]
    summands = [random.choice(SUMMANDS) for _ in letters]
    question = f"{total:02d} " + " ".join(map(str.__add__, letters, summands))
    steps, first, way = [], random.randrange(LONG), random.choice((1, -1))
    for place in [(first + way * i) % LONG for i in range(LONG)]:
        before, total = total, (total + int(summands[place])) % MODULUS
        steps.append(f"{letters[place]}{before:02d}{summands[place]}={total:02d}")
    return question, " ".join(steps), f"{total:02d}"


def document(index: int, random: Random) -> str:
    question, steps, answer = problem(random)
    ways = (DIRECT, FILLER.format(dots="." * len(steps)), STEPS + steps + "\nAnswer:")
    return f"{question}{ways[min(index % 10, 2)]} {answer}"


def accuracy(found) -> str:
    return ", ".join(
        f"{s.technique} {100 * s.accuracy:.1f}% ({100 * s.interval[0]:.1f} to {100 * s.interval[1]:.1f})"
        for s in found.settings
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--from", type=int, default=300, dest="start", help="the first step looked at for half-trained")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ["JUPYTER_GPT_HOME"] = tempfile.mkdtemp()
    from jupyter_gpt import gpt
    from jupyter_gpt.prompting import templates

    random = Random(asked.seed)
    documents = [document(i, random) for i in range(120_000)]
    for name, text in TEMPLATES.items():
        templates.replace("cot", name, text)
    run = gpt.pretrain(
        "sums",
        {"$documents": 1.0},
        tokenizer="char",
        arch="qwen3",
        depth=2,
        width=96,
        heads=6,
        context=288,
        batch_tokens=288 * 14,
        steps=asked.steps,
        seed=asked.seed,
        variables={"documents": documents},
        background=True,
        sample_every=10**9,
        eval_every=10**9,
    )
    print(f"{asked.questions} questions, greedy unless it says otherwise", flush=True)
    test = [problem(Random(f"test {i}")) for i in range(asked.questions)]
    thought = [(question, answer) for question, _, answer in test]
    once = {"greedy": {"cot": True, "temperature": 0.0}, "one sample at T=1": {"cot": True, "temperature": 1.0}}
    many = {"majority of 20 at T=1": {"cot": True, "temperature": 1.0, "samples": 20, "vote": True}}
    sample = {"one sample": once["one sample at T=1"]}
    for step in range(asked.start, asked.steps, 20):
        while run.step < step and run.alive:
            time.sleep(0.01)
        gpt.stop("sums")
        probe = gpt.evaluate(thought[:PROBED], models=["sums"], max_tokens=100, techniques=sample)
        if probe.settings[0].accuracy >= HALF:
            break
        run = gpt.resume("sums", variables={"documents": documents}, background=True)
    else:
        raise SystemExit(
            f"one sample was never right {HALF:.0%} of the time before step {asked.steps}: more --steps, another --seed"
        )
    half = gpt.evaluate(thought, models=["sums"], max_tokens=100, techniques=once | many)
    print(f"half-trained, stopped at step {run.step} of {asked.steps}: {accuracy(half)}", flush=True)
    run = gpt.resume("sums", variables={"documents": documents}, background=True)
    run.wait()
    seconds = gpt.runs["sums"].history["seconds"].iloc[-1]
    print(f"{gpt.models['sums'].parameters:,} parameters, trained for {seconds:.0f} s", flush=True)
    short = {"temperature": 0.0, "max_tokens": 6}
    direct = gpt.evaluate([(q + DIRECT, a) for q, _, a in test], models=["sums"], techniques={"direct": short})
    filler = gpt.evaluate(
        [(q + FILLER.format(dots="." * len(s)), a) for q, s, a in test], models=["sums"], techniques={"filler": short}
    )
    steps = gpt.evaluate(
        thought, models=["sums"], max_tokens=100, techniques={"steps": {"cot": True, "temperature": 0.0}}
    )
    print("trained, the same weights:", "; ".join(map(accuracy, (direct, filler, steps))))


if __name__ == "__main__":
    main()
