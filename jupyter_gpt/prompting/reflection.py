"""Reflection: ask the model whether it met the target, and let it revise.

A model that writes token by token cannot take a word back; shown its whole answer, it may see what is wrong with it.
`--check $function` is an outside verifier: it decides, and its words go into the request to revise. Without one the
model judges itself, which lowers accuracy on problems with right answers (Huang et al. 2023, "Large language models
cannot
self-correct reasoning yet": GSM8K 77.4 -> 75.9 for GPT-3.5): use it for form and completeness, not for truth.
"""

from __future__ import annotations

from dataclasses import replace

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.ask import Ask, Asked, filled, go_on, text_of
from jupyter_gpt.prompting.chain_of_thought import answered
from jupyter_gpt.prompting.direct import read_off
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.trace import Node

TEMPLATES = {
    "reflect": "Did you do what was asked? Go over your answer again and look for mistakes. If it is right and "
    "complete, "
    "reply with the one word CORRECT. Otherwise say what is wrong with it.",
    "revise": "Write the whole answer again, with that put right.",
    "refuted": "That is wrong.{why} Find the mistake and write the whole answer again.",
}
FINE = "CORRECT"


def reflect(technique, solve):
    """The technique, and then up to `options.reflect` rounds of looking back and revising; a base model, which cannot
    be
    told what was wrong, draws a new solution by `solve`."""

    def reflected(ask: Ask, question: Asked, options: Options) -> Node:
        answer = ask.best = technique(ask, question, options)
        asked = question
        ask.again(answer.answer or answer.text)
        for number in range(1, options.reflect + 1):
            with ask.inside(Node("reflect", f"looks back, {number} of {options.reflect}")) as node:
                asked, right, words = looked_back(ask, question, answer, options)
                if right:
                    return answer
                revised = revision(ask, question, asked, answer, words, options, solve)
                answer.pruned, answer = True, revised
                ask.best = answer
                if ask.again(answer.answer or answer.text):
                    node.note = "the same answer again: it goes round in a circle, and ends here"
                    break
        if options.check and not verdict(ask, question, answer, options.check)[0]:
            ask.root.note = "no answer passed the check; this is the last one"
        return answer

    return reflected


def looked_back(ask: Ask, question: Asked, answer: Node, options: Options) -> tuple[Asked, bool, str]:
    """The chat so far, whether the answer stands, and what is wrong with it."""
    if options.check:
        right, words = verdict(ask, question, answer, options.check)
        return question, right, words
    words = ask.words("reflection", TEMPLATES)
    asked = go_on(ask, question, answer.text, words["reflect"])
    [node] = ask.nodes([asked], label="did it meet the target?")
    right = node.text.strip().upper().strip("*.!\"' ").startswith(FINE)
    node.answer = "yes" if right else "no"
    return asked, right, node.text


def verdict(ask: Ask, question: Asked, answer: Node, check) -> tuple[bool, str]:
    """What the user's function says: true, false, what is wrong in words, or both."""
    said = ask.user(check, text_of(question), answer.text if answer.answer is None else answer.answer)
    if isinstance(said, str):
        right, words = not said, said
    elif isinstance(said, tuple) and len(said) == 2:
        right, words = bool(said[0]), str(said[1])
    elif said is None:
        raise GPTError("--check got None from its function: it returns True, False, or what is wrong in words")
    else:
        right, words = bool(said), ""
    answer.score = float(right)
    ask.add(Node("check", "passes the check" if right else "fails the check", text=words, score=float(right)))
    return right, words


def revision(ask: Ask, question: Asked, asked: Asked, answer: Node, words: str, options: Options, solve) -> Node:
    """The answer anew."""
    templates = ask.words("reflection", TEMPLATES)
    if not ask.chat:
        [again] = solve(ask, question, options, 1)
        return again
    if options.check:
        why = f" {words}" if words else ""
        asked = go_on(ask, question, answer.text, filled(templates["refuted"], why=why))
    else:
        asked = go_on(ask, asked, words, templates["revise"])
    constraint = {} if options.cot else options.constraint
    [revised] = ask.nodes([asked], label="revises", **constraint)
    if options.cot:
        answered(ask, asked, [revised], options)
    else:
        read_off(ask, asked, [revised], replace(options, vote=options.vote and answer.answer is not None))
    return revised
