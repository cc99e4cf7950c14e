"""How techniques are put together: by function composition, from the inside out.

    a solver     direct | chain of thought | tree of thoughts | react      (perhaps asked as an expert)
    one answer   the first solution | the vote | the best by a reward
    looked over  reflection

A solver is `(ask, question, options, samples) -> list[Node]`, a technique `(ask, question, options) -> Node`.
"""

from __future__ import annotations

from collections.abc import Callable

from jupyter_gpt.prompting.ask import Ask, Asked
from jupyter_gpt.prompting.chain_of_thought import chain_of_thought
from jupyter_gpt.prompting.direct import direct
from jupyter_gpt.prompting.expert import expert
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.react import react
from jupyter_gpt.prompting.reflection import reflect
from jupyter_gpt.prompting.self_consistency import best_of, vote
from jupyter_gpt.prompting.task_list import task_list
from jupyter_gpt.prompting.trace import Node
from jupyter_gpt.prompting.tree_of_thoughts import tree_of_thoughts


def technique_of(options: Options) -> Callable[[Ask, Asked, Options], Node]:
    """The technique that these options ask for; `options.check` has said that they make sense."""
    solve = remembered(solver_of(options))
    if options.tasks:
        return reflect(task_list, solver_of(options)) if options.reflect else task_list
    one = vote(solve) if options.vote else best_of(solve) if options.best_of else first(solve)
    return reflect(one, solver_of(options)) if options.reflect else one


def solver_of(options: Options) -> Callable[[Ask, Asked, Options, int], list[Node]]:
    """What draws the solutions."""
    if options.acting:
        return expert(react) if options.expert else react
    solve = tree_of_thoughts if options.tree else chain_of_thought if options.cot else direct
    return expert(solve) if options.expert else solve


def first(solve: Callable) -> Callable[[Ask, Asked, Options], Node]:
    """The technique that draws `options.samples` solutions and returns the first."""
    return lambda ask, question, options: solve(ask, question, options, options.samples)[0]


def remembered(solve: Callable) -> Callable[[Ask, Asked, Options, int], list[Node]]:
    """The solver; what it draws is left in `ask.solutions`, for a completion's samples."""

    def solved(ask: Ask, question: Asked, options: Options, samples: int = 1) -> list[Node]:
        ask.solutions = solve(ask, question, options, samples)
        return ask.solutions

    return solved
