"""Ensemble several attempts: sample many chains of thought, and take the answer that most of them reach.

Self-consistency (Wang et al. 2022): many ways of thinking lead to the right answer, wrong ones differ from one another.
All samples come from one reading of the prompt. With a reward instead of a vote it is best-of-N.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jupyter_gpt.prompting.answers import Form, key, read
from jupyter_gpt.prompting.ask import Ask, Asked, Enough, text_of
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.trace import Node


def vote(solve):
    """The technique that draws `options.samples` solutions and returns the first that has the majority's answer."""

    def majority(ask: Ask, question: Asked, options: Options) -> Node:
        solutions = drawn(ask, solve, question, options)
        spread = counted(solutions, options.form)
        node = ask.add(
            Node("vote", f"{len(solutions)} votes", result=dict(spread), note=verdict(spread, len(solutions)))
        )
        if not spread:
            return solutions[0]
        most = next(iter(spread))
        winner = next(s for s in solutions if s.answer is not None and key(s.answer, options.form) == most)
        node.answer, node.votes, node.text = winner.answer, spread[most], winner.text
        return winner

    return majority


def drawn(ask: Ask, solve, question: Asked, options: Options) -> list[Node]:
    """The solutions; where the budget or ■ ended the sampling, those that came, with the answers that stand in them.

    Raises Enough when nothing came.
    """
    try:
        return solve(ask, question, options, options.samples)
    except Enough as reason:
        ask.ended = str(reason)
        came = [node for node in ask.root.walk() if node.kind in ("sample", "answer") and node.text]
        if not came:
            raise
        for node in came:
            node.answer = node.answer or read(node.text, options.form, cut=node.cut)
        return came


def counted(solutions: Sequence[Node], form: Form) -> dict[str, int]:
    """How many solutions have each answer, the most frequent first (of equals, the one found first); every solution
    is told how many share its own."""
    keys = [None if s.answer is None else key(s.answer, form) for s in solutions]
    spread = Counter(k for k in keys if k is not None)
    for solution, answer in zip(solutions, keys, strict=True):
        solution.votes = 0 if answer is None else spread[answer]
    return dict(spread.most_common())


def verdict(spread: dict[str, int], samples: int) -> str:
    """What is to be said of a vote that was no clear one; "" where more than half agree."""
    if not spread:
        return "no answer could be read from any sample: the first one stands"
    counts = list(spread.values())
    tied = [answer for answer, count in spread.items() if count == counts[0]]
    if len(tied) > 1:
        names = ", ".join(tied[:5]) + (" …" if len(tied) > 5 else "")
        return f"no majority: {counts[0]} of {samples} each for {names}; the one found first is taken"
    return f"no majority: the most frequent answer has {counts[0]} of {samples}" if 2 * counts[0] <= samples else ""


def best_of(solve):
    """The technique that draws `options.samples` solutions and returns the one that `options.best_of` scores
    highest.
    """

    def best(ask: Ask, question: Asked, options: Options) -> Node:
        solutions = drawn(ask, solve, question, options)
        for solution in solutions:
            solution.score = float(ask.user(options.best_of, text_of(question), solution.text))
        winner = max(solutions, key=lambda solution: solution.score)
        for solution in solutions:
            solution.pruned = solution is not winner
        low, high = min(s.score for s in solutions), winner.score
        ask.add(
            Node(
                "vote",
                f"best of {len(solutions)}",
                text=winner.text,
                answer=winner.answer,
                score=high,
                note="all scored alike: the first is taken" if low == high else f"scores {low:g} to {high:g}",
            )
        )
        return winner

    return best
