"""Chain of thought: tokens to think. The model writes its steps first, and the answer is read off at their end.

Zero-shot (Kojima et al. 2022): "Let's think step by step.", then a second pass in which the same model, its reasoning
before its eyes, gives the answer alone. Few-shot (Wei et al. 2022): worked examples show how, and a sentence such as
"The answer is 8." at their end is how the answer is found. Reasoning that names its answer so is not asked for it
again: a small model often gives another one then. Where the answer has a form to keep (regex, json, …), the thinking is
free of
it and the second pass is not: a constraint on the thinking costs accuracy.

A model that does not give an answer alone is asked once more, then said to have given none. Reasoning that was cut off
at
--max-tokens before it named an answer has none, and is not asked: what the model would say then is made up.
"""

from __future__ import annotations

from collections.abc import Sequence

from jupyter_gpt.data.render import ANSWER, ASK
from jupyter_gpt.inference.rules import rule
from jupyter_gpt.prompting.answers import named, read
from jupyter_gpt.prompting.ask import Ask, Asked, filled, go_on, reworded, text_of
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
    words = ask.words("cot", TEMPLATES)
    trigger = options.trigger or ("" if options.few_shot else words["trigger"])
    asked = thinking(ask, question, options, words, trigger)
    ends = (words["stop_document"], words["extract_document"])  # or it concludes by itself, in the same words
    settings = {} if ask.chat else {"few_shot": None, "stop": stops(ask, *ends[: 1 if options.few_shot else 2])}
    [call] = ask.nodes([asked], label="thinks step by step", samples=samples, **settings)
    chains = call.children or [call]
    answered(ask, asked, chains, options)
    return chains


def thinking(ask: Ask, question: Asked, options: Options, words, trigger: str) -> Asked:
    """The prompt that starts the reasoning. The examples of a chat are turns, put there when it is laid out."""
    if ask.chat:
        text = text_of(question)
        return reworded(question, filled(words["think"], question=text, trigger=trigger).strip() if trigger else text)
    shots = "".join(filled(SHOT, question=q, answer=a) for q, a in options.few_shot)
    return shots + filled(words["think_document"], question=text_of(question), trigger=trigger).rstrip(" ")


def stops(ask: Ask, *more: str) -> list[str]:
    """The texts that end an answer: the user's, and those of a technique, such as where another question begins."""
    own = ask.settings.get("stop") or []
    return [*([own] if isinstance(own, str) else own), *filter(None, more)]


def answered(ask: Ask, asked: Asked, chains: Sequence[Node], options: Options) -> None:
    """Give each chain its answer: the one that it names, else the one that the model gives when it is asked for it. One
    that was cut off before it named any has none."""
    words = ask.words("cot", TEMPLATES)
    extract = words["extract" if ask.chat else "extract_document"]
    for chain in chains:
        chain.answer = in_reasoning(chain, options, whole=not extract)
        if chain.answer is None and chain.cut:
            chain.note = stopped(chain)
    missing = [chain for chain in chains if chain.answer is None and chain.text.strip() and not chain.cut]
    if not missing or not (extract or options.constraint):
        return
    first = [go_on(ask, asked, chain.text, extract) for chain in missing]
    found = extracted(ask, first, missing, "reads off the answer", options)
    wrong = [i for i, node in enumerate(found) if missing[i].answer is None]
    if wrong and ask.chat and words["repair"] and not options.constraint:  # a document has nobody to be told
        again = [go_on(ask, first[i], found[i].text or "…", words["repair"]) for i in wrong]
        extracted(ask, again, [missing[i] for i in wrong], "asked once more", options)
    for chain in missing:
        if chain.answer is None and options.form.kind:
            chain.answer = read(chain.text, options.form)
        if chain.answer is None:
            chain.note = "gave no answer alone, though it was asked for one"


def in_reasoning(chain: Node, options: Options, whole: bool) -> str | None:
    """The answer that the reasoning names; with `whole`, any that can be read from it. One that has a form to keep is
    none
    unless it keeps it."""
    reading = read if whole else named
    answer = reading(chain.text, options.form, cut=chain.cut)
    held = rule(**options.constraint)
    return None if answer is None or (held and held.problem(answer)) else answer


def stopped(node: Node) -> str:
    """Why a text that was cut off has no answer."""
    most, drawn = node.completion.sampling.max_tokens, len(node.completion.tokens)
    return f"no answer: stopped at {'the end of the context' if 0 < drawn < most else f'--max-tokens {most}'}"


def extracted(ask: Ask, prompts: list[Asked], chains: Sequence[Node], label: str, options: Options) -> list[Node]:
    """One pass of the extraction, all chains together and the likeliest words of each."""
    settings = {"samples": 1, "temperature": 0.0, **options.constraint}
    if not options.constraint:
        settings["max_tokens"] = ANSWER_TOKENS
    if not ask.chat:
        settings |= {"few_shot": None, "stop": stops(ask, "\n")} if not options.constraint else {"few_shot": None}
    found = ask.nodes(prompts, label=label, kind="extract", under=list(chains), **settings)
    for chain, node in zip(chains, found, strict=True):
        if options.constraint:
            node.answer = None if node.completion.valid is False else node.text
        else:
            node.answer = read(node.text, options.form, cut=node.cut, alone=True)
        chain.answer = node.answer
    return found
