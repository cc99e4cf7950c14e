"""No technique: the question as it is. What every technique is measured against, and what some are built on."""

from __future__ import annotations

from collections.abc import Sequence

from jupyter_gpt.data.render import ANSWER, ASK
from jupyter_gpt.prompting.answers import read
from jupyter_gpt.prompting.ask import Ask, Asked, reworded, text_of
from jupyter_gpt.prompting.chain_of_thought import answered, stopped
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.trace import Node


def direct(ask: Ask, question: Asked, options: Options, samples: int = 1) -> list[Node]:
    """A solver: asks `samples` times, with one reading of the prompt."""
    if options.trigger:
        text = text_of(question)
        text = f"{text}\n\n{options.trigger}" if ask.chat else f"{ASK} {text}\n{ANSWER} {options.trigger}"
        question = reworded(question, text)
    [call] = ask.nodes([question], label="asks", samples=samples, **options.constraint)
    solutions = call.children or [call]
    read_off(ask, question, solutions, options)
    return solutions


def read_off(ask: Ask, asked: Asked, solutions: Sequence[Node], options: Options) -> None:
    """Give each solution its answer: the text itself where that has a form to keep, else the one that it gives; where a
    vote needs one, the model is asked to read it off."""
    for solution in solutions:
        if options.constraint:
            solution.answer = None if solution.completion.valid is False else solution.text
        else:
            solution.answer = read(solution.text, options.form, cut=solution.cut)
        if solution.answer is None and solution.cut and options.vote:
            solution.note = stopped(solution)
    if options.vote and not options.constraint:
        answered(ask, asked, [s for s in solutions if s.answer is None], options)
