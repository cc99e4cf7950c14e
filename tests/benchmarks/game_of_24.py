"""Game of 24 (Yao et al. 2023, section 4.1): input-output prompting, chains of thought, their majority, a tree of
thoughts.

    python tests/benchmarks/game_of_24.py --data 24.csv [--minutes 2.5] [--puzzles 100]

`24.csv` is the table of 4nums.com that the paper uses, with a column `Puzzles`, easiest first; the paper's test is rows
901 to 1000. A small model is trained here, on a CPU and for minutes, on solutions of the *other* puzzles, written at
once or step by step. Then everything is asked of the same weights at temperature 1:

    IO        the answer at once
    CoT       the steps, then the answer; one chain
    CoT-SC    the majority of 20 chains
    ToT       breadth-first search of breadth 5 over steps, with a perfect value function: 1 where 24 can still be
              reached from the numbers that are left, 0 where it cannot, or where the step is not arithmetic

and the order of the paper, IO < CoT-SC < ToT, is to be seen, each with its tokens.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from functools import cache
from pathlib import Path
from random import Random

TARGET = 24
TEMPLATES = {
    "cot": {"think_document": "{question}\nSteps:\n", "extract_document": "", "stop_document": ""},
    "tree": {"propose_document": "{question}\nSteps:\n{steps}"},
}


def results(a: int, b: int) -> list[tuple[str, int]]:
    """Each operation on two whole numbers that gives a whole number, none below 0."""
    a, b = max(a, b), min(a, b)
    found = [(f"{a}+{b}", a + b), (f"{a}-{b}", a - b), (f"{a}*{b}", a * b)]
    return [*found, (f"{a}/{b}", a // b)] if b and a % b == 0 else found


def moves(numbers: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
    """Each operation on two of the sorted `numbers`, and the numbers that are then left, sorted."""
    found = {}
    for i in range(len(numbers)):
        for j in range(i):
            rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
            for operation, value in results(numbers[i], numbers[j]):
                found[operation] = tuple(sorted([*rest, value]))
    return list(found.items())


@cache
def reachable(numbers: tuple[int, ...]) -> bool:
    if len(numbers) == 1:
        return numbers[0] == TARGET
    return any(reachable(left) for _, left in moves(numbers))


def spaced(numbers) -> str:
    return " ".join(map(str, numbers))


def solution(numbers: tuple[int, ...], random: Random) -> list[tuple[str, tuple[int, ...]]]:
    """A way to 24, drawn by lot among the moves that keep it in reach."""
    path = []
    while len(numbers) > 1:
        path.append(random.choice([move for move in moves(numbers) if reachable(move[1])]))
        numbers = path[-1][1]
    return path


def document(index: int, puzzle: tuple[int, ...], random: Random) -> str:
    path = solution(puzzle, random)
    answer = f"Answer: {spaced(operation for operation, _ in path)}"
    if index % 4 == 0:
        return f"{spaced(puzzle)}\n{answer}"
    return "\n".join([spaced(puzzle), "Steps:", *(f"{o} left {spaced(left)}" for o, left in path), answer])


def played(puzzle: str, operations: list[str]) -> tuple[int, ...] | None:
    """The numbers left after these operations; None where one cannot be done."""
    numbers = tuple(sorted(map(int, puzzle.split())))
    for operation in operations:
        numbers = dict(moves(numbers)).get(operation)
        if numbers is None:
            return None
    return numbers


def solves(answer: str, puzzle: str) -> bool:
    return played(puzzle, answer.split()) == (TARGET,)


def value(puzzle: str, steps: str) -> float:
    """Perfect: 1 where 24 is in reach and the last step says rightly what is left, else 0."""
    lines = steps.splitlines()
    if lines[-1].startswith("Answer:"):
        return float(solves(lines[-1].removeprefix("Answer:"), puzzle))
    numbers = played(puzzle, [line.split(" left ")[0] for line in lines])
    return float(numbers is not None and reachable(numbers) and lines[-1].endswith(f" left {spaced(numbers)}"))


def line(found) -> str:
    return "\n".join(
        f"{s.technique:<8} {100 * s.accuracy:5.1f}%  ({100 * s.interval[0]:.1f} to {100 * s.interval[1]:.1f}), "
        f"{s.tokens_out / s.count:,.0f} tokens written a puzzle, {s.seconds / s.count:.2f} s"
        for s in found.settings
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=2.5)
    parser.add_argument("--puzzles", type=int, default=100)
    asked = parser.parse_args()
    os.environ["JUPYTER_GPT_HOME"] = tempfile.mkdtemp()
    from jupyter_gpt import gpt
    from jupyter_gpt.prompting import templates

    with Path(asked.data).open(encoding="utf-8") as file:
        puzzles = [tuple(sorted(map(int, row["Puzzles"].split()))) for row in csv.DictReader(file)]
    test = [puzzle for puzzle in puzzles[900 : 900 + asked.puzzles] if reachable(puzzle)]
    known = [puzzle for puzzle in puzzles if puzzle not in test and reachable(puzzle)]
    random = Random(0)
    documents = [document(i, random.choice(known), random) for i in range(100_000)]
    for technique, texts in TEMPLATES.items():
        for name, text in texts.items():
            templates.replace(technique, name, text)
    run = gpt.pretrain(
        "proposer",
        {"$documents": 1.0},
        tokenizer="char",
        depth=4,
        width=128,
        heads=4,
        context=128,
        batch_tokens=128 * 48,
        minutes=asked.minutes,
        variables={"documents": documents},
        sample_every=10**9,
        eval_every=10**9,
    )
    print(
        f"{gpt.models['proposer'].parameters:,} parameters, {run.step} steps in {asked.minutes:g} minutes; "
        f"{len(test)} puzzles "
        "it has not seen, those of the paper that whole numbers solve",
        flush=True,
    )
    warm = {"temperature": 1.0, "max_tokens": 100}
    table = [(spaced(puzzle), spaced(puzzle)) for puzzle in test]
    io = gpt.evaluate(
        [(f"{question}\nAnswer:", answer) for question, answer in table],
        models=["proposer"],
        score=solves,
        techniques={"IO": {}},
        **warm,
    )
    print(line(io), flush=True)
    rest = gpt.evaluate(
        table,
        models=["proposer"],
        score=solves,
        **warm,
        techniques={
            "CoT": {"cot": True},
            "CoT-SC": {"cot": True, "samples": 20, "vote": True},
            "ToT b=5": {"tree": True, "breadth": 5, "depth": 4, "value": value},
        },
    )
    print(line(rest))


if __name__ == "__main__":
    main()
