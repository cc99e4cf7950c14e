"""A calculator inside the text: what it is worth to one small model that was trained here, in a minute, to call it.

    python tests/benchmarks/calculator.py [--steps 800] [--questions 200]

The model learns to write `482*937?`, a call `<<482*937=451634>>`, and the answer, `482*937=451634`. The same weights
are then asked greedily, with the same prompts: once they write the result of the call themselves, once the calculator
does (its result is forced into the text, token by token, and read on from there). Multiplying numbers of three digits
within one token's time is beyond a model of this size; copying the factors into the call, and the result out of it, is
not. Everything through `gpt.pretrain` and `gpt.prompts`, as a notebook would.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from random import Random


def problem(random: Random) -> tuple[int, int]:
    """Two factors of three digits."""
    return random.randrange(100, 1000), random.randrange(100, 1000)


def document(random: Random) -> str:
    """Half of the products have five digits, half six: of the first alone one in seven, too few to learn to copy
    them.
    """
    short = random.random() < 0.5
    a, b = problem(random)
    while (a * b < 100_000) != short:
        a, b = problem(random)
    return f"{a}*{b}?\n<<{a}*{b}={a * b}>>\nAnswer: {a}*{b}={a * b}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ["JUPYTER_GPT_HOME"] = tempfile.mkdtemp()
    from jupyter_gpt import gpt
    from jupyter_gpt.evaluation.metrics import wilson

    random = Random(f"train {asked.seed}")
    documents = [document(random) for _ in range(120_000)]
    run = gpt.pretrain(
        "multiplier",
        {"$documents": 1.0},
        variables={"documents": documents},
        tokenizer="char",
        arch="qwen3",
        depth=3,
        width=96,
        heads=3,
        context=64,
        batch_tokens=64 * 32,
        steps=asked.steps,
        seed=asked.seed,
        eval_every=10**9,
        sample_every=10**9,
    )
    print(f"{gpt.models['multiplier'].parameters:,} parameters, trained for {run.history['seconds'].iloc[-1]:.0f} s")
    random = Random(f"test {asked.seed}")
    tests = [problem(random) for _ in range(asked.questions)]
    for calculator in (False, True):
        done = gpt.prompts(
            [f"{a}*{b}?\n" for a, b in tests], model="multiplier", temperature=0, max_tokens=48, calculator=calculator
        )
        right = sum(
            one.text.rpartition("Answer:")[2].strip() == f"{a}*{b}={a * b}"
            for one, (a, b) in zip(done, tests, strict=True)
        )
        low, high = wilson(right / len(tests), len(tests))
        print(
            f"{'with' if calculator else 'without'} the calculator: {100 * right / len(tests):.1f}% "
            f"({100 * low:.1f} to {100 * high:.1f}), for example {done[0].text!r}"
        )


if __name__ == "__main__":
    main()
