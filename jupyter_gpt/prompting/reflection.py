"""Reflection: ask the model whether it met the target, and let it revise.

A model that writes token by token cannot take a word back; given its whole answer, it may see what is wrong with it.
`--check $function` is an outside verifier: it decides, and its words go into the request to revise. Without one the
model judges itself, which lowers accuracy on problems with right answers (Huang et al. 2023, "Large language models
cannot self-correct reasoning yet": GSM8K 77.4 -> 75.9 for GPT-3.5): use it for form and completeness, not for truth.
"""

from __future__ import annotations

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.ask import Ask, Asked, follow_up, format_template, text_of
from jupyter_gpt.prompting.chain_of_thought import extract_answers, read_answers
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.trace import Node

TEMPLATES = {
    "reflect": "Did you do what was asked? Go over your answer again and look for mistakes. If it is right and "
    "complete, reply with the one word CORRECT. Otherwise say what is wrong with it.",
    "revise": "Write the whole answer again, with that put right.",
    "refuted": "That is wrong.{why} Find the mistake and write the whole answer again.",
}
FINE = "CORRECT"


def reflect(technique, solve):
    """The technique, then up to `options.reflect` rounds of review and revision. A base model, which cannot be told
    what was wrong, draws a new solution by `solve`."""

    def reflected(ask: Ask, question: Asked, options: Options) -> Node:
        answer = ask.best = technique(ask, question, options)
        ask.is_repeated(answer.answer or answer.text)
        for number in range(1, options.reflect + 1):
            with ask.inside(Node("reflect", f"reflects, {number} of {options.reflect}")) as node:
                asked, right, critique = review(ask, question, answer, options)
                if right:
                    return answer
                revised = revise(ask, question, asked, answer, critique, options, solve)
                answer.pruned, answer = True, revised
                ask.best = answer
                if ask.is_repeated(answer.answer or answer.text):
                    node.note = "the same answer again: the revision ends here"
                    break
        if options.check and not verify(ask, question, answer, options.check)[0]:
            ask.root.note = "no answer passed the check; this is the last one"
        return answer

    return reflected


def review(ask: Ask, question: Asked, answer: Node, options: Options) -> tuple[Asked, bool, str]:
    """The chat so far, whether the answer is right, and what is wrong with it."""
    if options.check:
        return question, *verify(ask, question, answer, options.check)
    asked = follow_up(ask, question, answer.text, ask.templates("reflection", TEMPLATES)["reflect"])
    [node] = ask.nodes([asked], label="did it meet the target?")
    right = node.text.strip().upper().strip("*.!\"' ").startswith(FINE)
    node.answer = "yes" if right else "no"
    return asked, right, node.text


def verify(ask: Ask, question: Asked, answer: Node, check) -> tuple[bool, str]:
    """The result of the user's function: True, False, what is wrong in words, or both."""
    result = ask.user(check, text_of(question), answer.text if answer.answer is None else answer.answer)
    if isinstance(result, str):
        right, critique = not result, result
    elif isinstance(result, tuple) and len(result) == 2:
        right, critique = bool(result[0]), str(result[1])
    elif result is None:
        raise GPTError("--check got None from its function: it returns True, False, or what is wrong in words")
    else:
        right, critique = bool(result), ""
    answer.score = float(right)
    ask.add(Node("check", "passes the check" if right else "fails the check", text=critique, score=float(right)))
    return right, critique


def revise(ask: Ask, question: Asked, asked: Asked, answer: Node, critique: str, options: Options, solve) -> Node:
    """The revised answer."""
    if not ask.chat:
        return solve(ask, question, options, 1)[0]
    texts = ask.templates("reflection", TEMPLATES)
    if options.check:
        why = f" {critique}" if critique else ""
        asked = follow_up(ask, question, answer.text, format_template(texts["refuted"], why=why))
    else:
        asked = follow_up(ask, asked, critique, texts["revise"])
    [revised] = ask.nodes([asked], label="revises", **({} if options.cot else options.constraint))
    if options.cot:
        extract_answers(ask, asked, [revised], options)
    else:
        read_answers(ask, asked, [revised], options.replace(vote=options.vote and answer.answer is not None))
    return revised
