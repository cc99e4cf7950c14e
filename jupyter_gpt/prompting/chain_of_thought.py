"""Chain of thought: tokens to think. The model writes its steps first, and the answer is extracted at their end.

Zero-shot (Kojima et al. 2022): "Let's think step by step.", then a second pass in which the same model, with its
reasoning in the prompt, gives the answer alone. Few-shot (Wei et al. 2022): worked examples show how, and a sentence
such as "The answer is 8." at their end gives the answer. Reasoning that states its answer is not asked for it again: a
small model often gives another one then. A constraint (regex, json, …) holds for the second pass only: constrained
thinking costs accuracy.

A model that does not give an answer alone is asked once more, and then has none. Reasoning cut off at --max-tokens
before it states an answer has none and is not asked: the model would make one up.

`direct` is no technique at all, the question as it is: what every technique is measured against.
"""

from __future__ import annotations

from collections.abc import Sequence

from jupyter_gpt.data.render import ANSWER, ASK
from jupyter_gpt.prompting.answers import extract_answer, stated_answer
from jupyter_gpt.prompting.ask import Ask, Asked, follow_up, format_template, text_of, with_text
from jupyter_gpt.prompting.options import Options
from jupyter_gpt.prompting.trace import Node

TEMPLATES = {
    "trigger": "Let's think step by step.",
    "think": "{question}\n\n{trigger}",
    "extract": "Therefore, what is the answer? Reply with the answer alone.",
    "repair": "That is not an answer alone. Reply with the final answer only: a number, a name or a few words.",
    "think_document": f"{ASK} {{question}}\n{ANSWER} {{trigger}}",
    "extract_document": "\nTherefore, the answer is",
    "stop_document": f"\n{ASK}",
}  # an empty `extract` (or `extract_document`): the answer is read from the reasoning itself, no second pass
SHOT = f"{ASK} {{question}}\n{ANSWER} {{answer}}\n\n"
ANSWER_TOKENS = 32  # of an answer alone


def chain_of_thought(ask: Ask, question: Asked, options: Options, samples: int = 1) -> list[Node]:
    """A solver: `samples` chains from one reading of the prompt, each with its answer."""
    texts = ask.templates("cot", TEMPLATES)
    trigger = options.trigger or ("" if options.few_shot else texts["trigger"])
    if ask.chat:  # the examples of a chat are messages, added when it is laid out
        text = text_of(question)
        text = format_template(texts["think"], question=text, trigger=trigger).strip() if trigger else text
        asked, settings = with_text(question, text), {}
    else:
        shots = "".join(format_template(SHOT, question=q, answer=a) for q, a in options.few_shot)
        asked = shots + format_template(texts["think_document"], question=text_of(question), trigger=trigger).rstrip(
            " "
        )
        ends = (texts["stop_document"], texts["extract_document"])  # it may conclude by itself, in the same words
        settings = {"few_shot": None, "stop": ask.stops(*ends[: 1 if options.few_shot else 2])}
    [call] = ask.nodes([asked], label="thinks step by step", samples=samples, **settings)
    chains = call.children or [call]
    extract_answers(ask, asked, chains, options)
    return chains


def direct(ask: Ask, question: Asked, options: Options, samples: int = 1) -> list[Node]:
    """A solver without a technique: `samples` answers from one reading of the prompt."""
    if options.trigger:
        text = text_of(question)
        text = f"{text}\n\n{options.trigger}" if ask.chat else f"{ASK} {text}\n{ANSWER} {options.trigger}"
        question = with_text(question, text)
    [call] = ask.nodes([question], label="asks", samples=samples, **options.constraint)
    solutions = call.children or [call]
    read_answers(ask, question, solutions, options)
    return solutions


def read_answers(ask: Ask, asked: Asked, solutions: Sequence[Node], options: Options) -> None:
    """Set each solution's answer: its whole text under a constraint, else what can be read from it; if a vote needs
    one, the model is asked for it."""
    for solution in solutions:
        if options.constraint:
            solution.answer = None if solution.completion.valid is False else solution.text
        else:
            solution.answer = extract_answer(solution.text, options.form, cut=solution.cut)
        if solution.answer is None and solution.cut and options.vote:
            solution.note = cut_off(solution)
    if options.vote and not options.constraint:
        extract_answers(ask, asked, [s for s in solutions if s.answer is None], options)


def extract_answers(ask: Ask, asked: Asked, chains: Sequence[Node], options: Options) -> None:
    """Set each chain's answer: the one its reasoning states, else the one the model gives when asked for it."""
    texts = ask.templates("cot", TEMPLATES)
    extract = texts["extract" if ask.chat else "extract_document"]
    for chain in chains:
        answer = (stated_answer if extract else extract_answer)(chain.text, options.form, cut=chain.cut)
        keeps = answer is not None and not (options.rule and options.rule.problem(answer))
        chain.answer = answer if keeps else None
        if chain.answer is None and chain.cut:
            chain.note = cut_off(chain)
    missing = [chain for chain in chains if chain.answer is None and chain.text.strip() and not chain.cut]
    if not missing or not (extract or options.constraint):
        return
    first = [follow_up(ask, asked, chain.text, extract) for chain in missing]
    nodes = second_pass(ask, first, missing, "extracts the answer", options)
    wrong = [i for i, chain in enumerate(missing) if chain.answer is None]
    if wrong and ask.chat and texts["repair"] and not options.constraint:  # a document has no turn to say so
        again = [follow_up(ask, first[i], nodes[i].text or "…", texts["repair"]) for i in wrong]
        second_pass(ask, again, [missing[i] for i in wrong], "asked again", options)
    for chain in missing:
        if chain.answer is None and options.form.kind:
            chain.answer = extract_answer(chain.text, options.form)
        if chain.answer is None:
            chain.note = "gave no answer when asked for it alone"


def second_pass(ask: Ask, prompts: list[Asked], chains: Sequence[Node], label: str, options: Options) -> list[Node]:
    """Ask for the answers of all chains together, greedily."""
    settings = {"samples": 1, "temperature": 0.0, **(options.constraint or {"max_tokens": ANSWER_TOKENS})}
    if not ask.chat:
        settings |= {"few_shot": None} | ({} if options.constraint else {"stop": ask.stops("\n")})
    nodes = ask.nodes(prompts, label=label, kind="extract", under=list(chains), **settings)
    for chain, node in zip(chains, nodes, strict=True):
        if options.constraint:
            node.answer = None if node.completion.valid is False else node.text
        else:
            node.answer = extract_answer(node.text, options.form, cut=node.cut, alone=True)
        chain.answer = node.answer
    return nodes


def cut_off(node: Node) -> str:
    """The note on a text that was cut off before its answer."""
    most, drawn = node.completion.sampling.max_tokens, len(node.completion.tokens)
    return f"no answer: stopped at {'the end of the context' if 0 < drawn < most else f'--max-tokens {most}'}"
