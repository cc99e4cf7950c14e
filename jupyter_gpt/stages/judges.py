"""Judges that rank in a person's place: a function, a reward model, or a language model.

A function or a reward model scores each completion by itself, and the scores give the order; a function is called on
the waiting main thread, where an interrupt reaches it. A language model is shown a prompt with all its completions and
names their order. It is asked twice, the second time with the completions reversed, and the mean rank decides: judges
prefer the first or the last (position bias; Zheng et al. 2023, section 3.3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.metrics import ranks
from jupyter_gpt.stages.rankings import Question, finished

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
MAX_TOKENS = 48  # of a judge's reply
BATCH = 16  # questions put to a judging model together

LINE = re.compile(r"\d+(?:\W*[>=,]\W*(?:answer\W*)?\d+)+", re.IGNORECASE)
Order = Sequence[Sequence[int]]  # groups of places, the best first


def check(gpt, judge: object) -> Callable | str | None:
    """The judge; a model is loaded. Raises GPTError for what is neither a function nor a model."""
    if judge is None or callable(judge):
        return judge
    if not isinstance(judge, str):
        raise GPTError(f"expected a function f(prompt, completion) -> float or a model, got a {type(judge).__name__}")
    return gpt.models[judge].name


def rank_all(gpt, task, judge: Callable | str, tick: Callable | None = None) -> None:
    """Have `judge` rank the open questions of `task`; each ranking is kept at once under the judge's name.

    A function or a reward model ranks anew each time, for it may have changed; a language model only what it has not
    ranked yet. The judge's rankings of other questions are removed: they can always be made again.
    """
    if callable(judge):
        name = getattr(judge, "__name__", type(judge).__name__)
        task.by = by = name if name.isidentifier() else "judge"
        rank_by_scores(task, lambda question, each: judge(question.prompt, each["text"]), by, tick)
    else:
        task.by, model = (by := judge), gpt.models[judge]
        if getattr(model, "labels", None):
            rank_by_scores(
                task, lambda question, each: model.score(question.asked, each["text"], finished(each)), by, tick
            )
        else:
            rank_by_replies(gpt, task, by, tick)
    task.history.clear()
    keys = {question.key for question in task.questions}
    before = task.rankings.read()
    kept = [old for old in before if old.by != by or old.key in keys]
    if len(kept) < len(before):
        task.rankings.write(kept)


def rank_by_scores(task, score: Callable[[Question, Mapping], float], by: str, tick: Callable | None) -> None:
    """Order each question's completions by descending score, equal scores tied."""
    wanted = [i for i, question in enumerate(task.questions) if question.open]
    for done, i in enumerate(wanted):
        if tick:
            tick(f"{by} judges", done, len(wanted), 0)
        question = task.questions[i]
        scores = [as_number(score(question, each), by, each["text"]) for each in question.completions]
        task.rank(i, grouped([-each for each in scores]), by=by)
    if wanted and not any(task.answer(i).pairs for i in wanted):
        task.notes.append(f"{by} scores all completions of each prompt the same: there is nothing to learn from that")


def as_number(score: Any, by: str, text: str) -> float:
    """Raises GPTError for a score that is not a number."""
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if math.isnan(value):
        raise GPTError(f"judge {by} returned {score!r:.40} for {text[:40]!r}: expected a number, higher is better")
    return value


def grouped(values: Sequence[float]) -> list[list[int]]:
    """Places by ascending value, those of the same value together."""
    return [[i for i, each in enumerate(values) if each == value] for value in sorted(set(values))]


def rank_by_replies(gpt, task, name: str, tick: Callable | None) -> None:
    """Have a language model rank the questions that it has not ranked yet, a batch at a time."""
    ranked = task.rankings.latest(name)
    wanted = [i for i, q in enumerate(task.questions) if q.open and q.key not in ranked]
    failed = 0
    for start in range(0, len(wanted), BATCH):
        if tick:
            tick(f"{name} judges", start, len(wanted), 0)
        batch = wanted[start : start + BATCH]
        shown = [order for i in batch for order in (task.questions[i].shown, task.questions[i].shown[::-1])]
        prompts = [judge_prompt(task.questions[i], order) for i, order in zip(sorted(batch * 2), shown, strict=True)]
        replies = ask(gpt, name, prompts, [len(order) for order in shown])
        for k, i in enumerate(batch):
            pair = replies[2 * k : 2 * k + 2]
            task.judged[i] = [{"sent": each.prompt, "reply": each.text} for each, _ in pair]
            orders = [order for _, order in pair if order is not None]
            if len(orders) < 2:
                failed += 1
            else:
                task.rank(i, mean_order(orders, shown[2 * k : 2 * k + 2]), by=name)
    if failed:
        task.notes.append(f"{name} gave no ranking for {failed} of {len(wanted)} prompts, though it was asked again")


def mean_order(orders: Sequence[Order], shown: Sequence[Sequence[int]]) -> list[list[int]]:
    """One order by mean rank; `orders[i]` has indices into the places `shown[i]`."""
    totals = [0.0] * len(shown[0])
    for order, places in zip(orders, shown, strict=True):
        for number, rank in enumerate(ranks(order)):
            totals[places[number]] += rank
    return grouped(totals)


def judge_prompt(question: Question, shown: Sequence[int]) -> str:
    """The judge's prompt for a question, its completions in the order `shown`."""
    texts = [question.texts[place] for place in shown]
    answers = "\n\n".join(ANSWER.format(number=n, text=text.strip()) for n, text in enumerate(texts, start=1))
    count = len(texts)
    return JUDGE.format(count=count, prompt=question.prompt, answers=answers, example=example(count))


def example(count: int) -> str:
    """`2 > 1 > 3`: a line in the wanted form, neither in the order shown nor in its reverse."""
    return " > ".join(map(str, [*range(2, count + 1, 2), *range(1, count + 1, 2)]))


def ask(gpt, name: str, prompts: Sequence[str], counts: Sequence[int]) -> list[tuple]:
    """The judge's (completion, order) for each prompt, greedily; a reply that is no ranking is asked for once more."""
    chat = {"as_assistant": True} if not gpt.models[name].has_chat else {}
    options = {"model": name, "temperature": 0.0, "max_tokens": MAX_TOKENS, **chat}

    def replies(chats: Sequence[list[dict]], counts: Sequence[int]) -> list[tuple]:
        completions = gpt.prompts(chats, **options)
        if any(completion.interrupted for completion in completions):
            raise KeyboardInterrupt
        return [(each, parse_order(each.text, count)) for each, count in zip(completions, counts, strict=True)]

    result = replies([[{"role": "user", "content": text}] for text in prompts], counts)
    again = [i for i, (_, order) in enumerate(result) if order is None]
    if again:
        chats = [
            [
                {"role": "user", "content": prompts[i]},
                {"role": "assistant", "content": result[i][0].text or "…"},
                {"role": "user", "content": REPAIR.format(count=counts[i], example=example(counts[i]))},
            ]
            for i in again
        ]
        for i, repaired in zip(again, replies(chats, [counts[i] for i in again]), strict=True):
            result[i] = repaired
    return result


def parse_order(text: str, count: int) -> list[list[int]] | None:
    """The order that a reply names, as groups of places from 0; None when it names none.

    The first run of the numbers 1 to `count`, each once, with > or = or commas between them; of two answers, a single
    number is the better.
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
    single = {int(number) - 1 for number in re.findall(r"\d+", text)}
    if count == 2 and len(single) == 1 and single < {0, 1}:
        [best] = single
        return [[best], [1 - best]]
    return None
