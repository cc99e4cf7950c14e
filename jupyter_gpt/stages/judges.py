"""Judges: who ranks in a person's place, a function of the notebook or a model.

A function, or a reward model, scores each completion by itself, and the scores are the order; a function is called on
the thread that waits, the main one, where an interrupt reaches it. Any other model is shown a prompt with all its
completions and names their order. It is asked twice, the second time with the completions turned round, and ranks by
the mean of both: judges prefer what stands
first, or last (Zheng et al. 2023, section 3.3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.agreement import ranks
from jupyter_gpt.stages.rankings import finished

JUDGE = """\
Below are a prompt and {count} answers to it. Which answers are better?

[Prompt]
{prompt}

{answers}

Rank the answers from the best to the worst. Write one line and nothing else: their numbers with > between them, or = \
between two that are equally good. For example: {example}"""
ANSWER = "[Answer {number}]\n{text}"
REPAIR = """\
That is not a ranking of the {count} answers. Write one line and nothing else: each of the numbers 1 to {count} once, \
the best first, with > or = between them. For example: {example}"""
MAX_TOKENS = 48  # of a judge's answer
AT_ONCE = 16  # questions put to a judging model together

LINE = re.compile(r"\d+(?:\W*[>=,]\W*(?:answer\W*)?\d+)+", re.IGNORECASE)


def check(gpt, judge: object) -> Callable | str | None:
    """The judge, if it can be one; a model is loaded. Raises GPTError for what is neither a function nor a model."""
    if judge is None or callable(judge):
        return judge
    if not isinstance(judge, str):
        raise GPTError(f"a judge is a function f(prompt, completion) -> float or a model, not a {type(judge).__name__}")
    return gpt.models[judge].name


def judge(gpt, ranked, judge: Callable | str, tick: Callable | None = None) -> None:
    """Have the open questions of `ranked` answered by `judge`, each kept at once under the judge's name.

    A function, or a reward model, is asked anew each time, for it may have changed; a model that writes only where it
    has not answered yet. What the same judge once said of other texts is dropped: it can always be asked again.
    """
    by = judge if isinstance(judge, str) else called(judge)
    ranked.by = by
    model = gpt.models[judge] if isinstance(judge, str) else None
    if model is not None and not getattr(model, "labels", None):
        by_model(gpt, ranked, judge, tick)
    elif model is not None:
        by_function(ranked, lambda prompt, each: model.score(prompt, each["text"], finished(each)), by, tick)
    else:
        by_function(ranked, lambda prompt, each: judge(prompt, each["text"]), by, tick)
    keys = {question.key for question in ranked.questions}
    kept = ranked.rankings.read()
    stale = [old for old in kept if old.by == by and old.key not in keys]
    if stale:
        ranked.rankings.write([old for old in kept if old not in stale])


def called(function: Callable) -> str:
    """The name that a function's rankings are kept under."""
    name = getattr(function, "__name__", type(function).__name__)
    return name if name.isidentifier() else "judge"


def by_function(ranked, function: Callable, by: str, tick: Callable | None) -> None:
    """Order the completions of each question by what the function says of a prompt and each of them, equal ones
    tied.
    """
    wanted = [i for i, question in enumerate(ranked.questions) if question.open]
    for done, i in enumerate(wanted):
        if tick:
            tick(f"{by} judges", done, len(wanted), 0)
        question = ranked.questions[i]
        scores = [score(function, by, question.prompt, each) for each in question.completions]
        ranked.rank(i, grouped([-each for each in scores]), by=by)
    if wanted and not any(ranked.answer(i).pairs for i in wanted):
        ranked.notes.append(f"{by} scores the completions of each prompt alike: there is nothing to learn from that")


def score(function: Callable, by: str, prompt: str, completion: Mapping) -> float:
    """What the function gives a completion. Raises GPTError for what is no number; its own errors pass as they are."""
    given = function(prompt, completion)
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    if math.isnan(value):
        raise GPTError(
            f"judge {by} returned {given!r:.40} for {completion['text'][:40]!r}: a judge returns a number, higher "
            f"for the better"
        )
    return value


def grouped(values: Sequence[float]) -> list[list[int]]:
    """Places by ascending value, those of the same value together."""
    return [[i for i, each in enumerate(values) if each == value] for value in sorted(set(values))]


def by_model(gpt, ranked, name: str, tick: Callable | None) -> None:
    """Have a model rank what it has not ranked yet, some questions at a time."""
    known = ranked.rankings.latest(name)
    wanted = [i for i, q in enumerate(ranked.questions) if q.open and q.key not in known]
    failed = 0
    for at in range(0, len(wanted), AT_ONCE):
        lot = wanted[at : at + AT_ONCE]
        if tick:
            tick(f"{name} judges", at, len(wanted), 0)
        shown = [order for i in lot for order in both_ways(ranked.questions[i].shown)]
        asked = [asking(ranked.questions[i], order) for i, order in zip(twice(lot), shown, strict=True)]
        said = ask(gpt, name, asked, [len(order) for order in shown])
        for k, i in enumerate(lot):
            pair, orders = said[2 * k : 2 * k + 2], shown[2 * k : 2 * k + 2]
            ranked.judged[i] = [{key: each[key] for key in ("sent", "said")} for each in pair]
            if any(each["order"] is None for each in pair):
                failed += 1
                continue
            ranked.rank(i, together([each["order"] for each in pair], orders), by=name)
    if failed:
        ranked.notes.append(f"{name} gave no ranking for {failed} of {len(wanted)} prompts, though it was asked again")


def both_ways(shown: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(shown), tuple(reversed(shown))


def twice(items: Sequence) -> list:
    return [item for item in items for _ in range(2)]


def together(orders: Sequence[Sequence[Sequence[int]]], shown: Sequence[Sequence[int]]) -> list[list[int]]:
    """One order of places from several orders of numbers, each in its own succession of places: by mean rank."""
    totals = [0.0] * len(shown[0])
    for order, places in zip(orders, shown, strict=True):
        for number, rank in enumerate(ranks(order)):
            totals[places[number]] += rank
    return grouped(totals)


def asking(question, shown: Sequence[int]) -> str:
    """The judge's prompt for a question, its completions in the order `shown`."""
    texts = [question.texts[place] for place in shown]
    answers = "\n\n".join(ANSWER.format(number=n, text=text.strip()) for n, text in enumerate(texts, start=1))
    count = len(texts)
    return JUDGE.format(count=count, prompt=question.prompt, answers=answers, example=example(count))


def example(count: int) -> str:
    """`3 > 1 > 2`: a line as it is wanted, neither in the order shown nor in its reverse."""
    numbers = [*range(2, count + 1, 2), *range(1, count + 1, 2)]
    return " > ".join(map(str, numbers))


def ask(gpt, name: str, prompts: Sequence[str], counts: Sequence[int]) -> list[dict]:
    """Put the prompts to the judge, greedily, and those whose answer is no ranking once more with a word on that.

    For each what was `sent` last, what was `said`, and its `order`: groups of places as shown, or None.
    """
    chat = {"as_assistant": True} if not gpt.models[name].has_chat else {}
    options = {"model": name, "temperature": 0.0, "max_tokens": MAX_TOKENS, **chat}
    found = answered(gpt.prompts([[{"role": "user", "content": text}] for text in prompts], **options), counts)
    again = [i for i, each in enumerate(found) if each["order"] is None]
    talks = [
        [
            {"role": "user", "content": prompts[i]},
            {"role": "assistant", "content": found[i]["said"] or "…"},
            {"role": "user", "content": REPAIR.format(count=counts[i], example=example(counts[i]))},
        ]
        for i in again
    ]
    if again:
        second = answered(gpt.prompts(talks, **options), [counts[i] for i in again])
        for i, each in zip(again, second, strict=True):
            found[i] = each
    return found


def answered(completions: Sequence, counts: Sequence[int]) -> list[dict]:
    if any(completion.interrupted for completion in completions):
        raise KeyboardInterrupt
    return [
        {"sent": completion.prompt, "said": completion.text, "order": order_of(completion.text, count)}
        for completion, count in zip(completions, counts, strict=True)
    ]


def order_of(text: str, count: int) -> list[list[int]] | None:
    """The order that a judge's words name, as groups of places from 0; None when they name none.

    The first run of the numbers 1 to `count`, each once, with > or = or commas between them; of two answers, one
    number alone is the better.
    """
    for line in LINE.findall(text):
        pieces = re.findall(r"\d+|[>=,]+", line)
        numbers = [int(piece) - 1 for piece in pieces if piece.isdigit()]
        if sorted(numbers) != list(range(count)):
            continue
        order = [[numbers[0]]]
        for sign, number in zip((p for p in pieces if not p.isdigit()), numbers[1:], strict=True):
            if sign == "=":
                order[-1].append(number)
            else:
                order.append([number])
        return order
    alone = {int(number) - 1 for number in re.findall(r"\d+", text)}
    if count == 2 and len(alone) == 1 and alone < {0, 1}:
        [best] = alone
        return [[best], [1 - best]]
    return None
