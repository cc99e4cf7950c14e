"""Ensemble several attempts: sample many chains of thought, and take the answer that most of them reach.

Self-consistency (Wang et al. 2022): many ways of thinking lead to the right answer, wrong ones differ from one another.
All samples come from one reading of the prompt. With a reward instead of a vote it is best-of-N.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jupyter_gpt.prompting.answers import Form, extract_answer, normalize
from jupyter_gpt.prompting.ask import Ask, Asked, Stopped, text_of
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.trace import Node


def vote(solve):
    """The technique that draws `options.samples` solutions and returns the first with the majority's answer."""

    def majority(ask: Ask, question: Asked, options: Options) -> Node:
        solutions = draw(ask, solve, question, options)
        counts = count_answers(solutions, options.form)
        node = ask.add(
            Node("vote", f"{len(solutions)} votes", result=dict(counts), note=vote_note(counts, len(solutions)))
        )
        if not counts:
            return solutions[0]
        most = next(iter(counts))
        winner = next(s for s in solutions if s.answer is not None and normalize(s.answer, options.form) == most)
        node.answer, node.votes, node.text = winner.answer, counts[most], winner.text
        return winner

    return majority


def best_of(solve):
    """The technique that draws `options.samples` solutions and returns the one `options.best_of` scores highest."""

    def best(ask: Ask, question: Asked, options: Options) -> Node:
        solutions = draw(ask, solve, question, options)
        for solution in solutions:
            solution.score = float(ask.user(options.best_of, text_of(question), solution.text))
        winner = max(solutions, key=lambda solution: solution.score)
        for solution in solutions:
            solution.pruned = solution is not winner
        low, high = min(s.score for s in solutions), winner.score
        note = "all scores are equal: the first is taken" if low == high else f"scores {low:g} to {high:g}"
        label = f"best of {len(solutions)}"
        ask.add(Node("vote", label, text=winner.text, answer=winner.answer, score=high, note=note))
        return winner

    return best


def draw(ask: Ask, solve, question: Asked, options: Options) -> list[Node]:
    """The solutions; if sampling was stopped, those that came, with the answers that can be read from them.

    Raises Stopped if none came.
    """
    try:
        return solve(ask, question, options, options.samples)
    except Stopped as reason:
        ask.ended = str(reason)
        drawn = [node for node in ask.root.walk() if node.kind in ("sample", "answer") and node.text]
        if not drawn:
            raise
        for node in drawn:
            node.answer = node.answer or extract_answer(node.text, options.form, cut=node.cut)
        return drawn


def count_answers(solutions: Sequence[Node], form: Form) -> dict[str, int]:
    """How many solutions have each answer, most frequent first (of equals, the first found); each solution's `votes` is
    set to the count of its answer."""
    keys = [None if s.answer is None else normalize(s.answer, form) for s in solutions]
    counts = Counter(k for k in keys if k is not None)
    for solution, answer in zip(solutions, keys, strict=True):
        solution.votes = 0 if answer is None else counts[answer]
    return dict(counts.most_common())


def vote_note(counts: dict[str, int], samples: int) -> str:
    """The note on a vote without a clear majority; "" if more than half agree."""
    if not counts:
        return "no answer could be extracted from any sample: the first sample is returned"
    most = max(counts.values())
    tied = [answer for answer, count in counts.items() if count == most]
    if len(tied) > 1:
        names = ", ".join(tied[:5]) + (" …" if len(tied) > 5 else "")
        return f"no majority: {most} of {samples} each for {names}; the first one found is taken"
    return f"no majority: the most frequent answer has {most} of {samples}" if 2 * most <= samples else ""
