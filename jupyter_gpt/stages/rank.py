"""`%%rank`: sample K completions of each prompt and have them ranked by a person, by a judge, or by a file of rankings.

Labelling K completions per prompt at once is the data collection of InstructGPT (Ouyang et al. 2022, section 3.4).
Questions and rankings are both on disk, so a person continues where they stopped, in a new kernel too, and a ranking is
kept under the name of its annotator. `%%compare` and `%gpt arena` are the same task with other questions.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation import fingerprint
from jupyter_gpt.prompting.ask import Asked
from jupyter_gpt.runs.provenance import Provenance, provenance
from jupyter_gpt.stages import judges, preferences
from jupyter_gpt.stages.ranking_task import RankingTask
from jupyter_gpt.stages.rankings import Question, Rankings

BATCH = 64  # completions sampled together; each batch is on disk before the next is sampled
Tick = Callable[[str, int, int, int], None]  # (what is done, prompts done, prompts, tokens of the first completion)


def rank(
    gpt,
    name: str,
    prompts: Sequence[Asked] = (),
    *,
    model: str | Sequence[str] | None = None,
    samples: int = 4,
    seed: int = 0,
    by: str = "person",
    judge: Callable[[str, str], float] | str | None = None,
    rankings_file: Any = None,
    overwrite: bool = False,
    tick: Tick | None = None,
    **options,
) -> RankingTask:
    """Sample `samples` completions of each prompt from `model` (or of several), to be ranked under `name`. A prompt is
    a text, or a list of messages.

    `options` are those of `gpt.prompts`. `judge`, a function `f(prompt, completion) -> float` (higher is better) or the
    name of a model, ranks at once; `rankings_file` imports rankings of these prompts (of all its own where `prompts` is
    empty) from a file, a dataset of the hub or rows, and only the other prompts are sampled. `tick(what, done, total,
    tokens)` reports progress. An interrupt keeps what has been sampled and ranked. Questions of another cell under this
    name are replaced only with `overwrite`; rankings are kept. Raises GPTError for invalid prompts, models or options.
    """
    store.check_name(name)
    models = [model] if isinstance(model, str) else list(model or ())
    prompts, chats = texts_of(prompts)
    rankings = gpt.rankings.named(name)
    settings = {"samples": samples, "seed": seed, **options}
    if rankings_file is not None and judge is not None:
        raise GPTError("the rankings come from a judge or from a file, not from both: leave one out")
    found = None if rankings_file is None else preferences.read(rankings_file)
    made = provenance("rank", {"prompts": prompts or str(found and found.source), "model": models, **settings})
    rankings.claim(prompts, made, overwrite)
    imported: dict[str, list[Question]] = {}
    notes: list[str] = []
    if found is not None:
        imported, prompts, notes = import_rankings(rankings, found, prompts)
    to_sample = [text for text in prompts if text not in imported]
    check_prompts(prompts)
    if to_sample:
        check_models(models, samples, options)
    judge = judges.check(gpt, judge)
    sampled = {}
    if to_sample:
        sampled = questions_of(gpt, rankings, to_sample, models, settings, "together", one_question, made, tick, chats)
    questions = [question for text in prompts for question in (imported.get(text) or sampled[text])]
    rankings.present(questions, made)
    anybody = judge is not None or rankings_file is not None
    task = RankingTask(rankings, questions, models, settings, by=by, anybody=anybody, notes=notes)
    if judge is not None:
        judges.rank_all(gpt, task, judge, tick)
    return task


def reopened(gpt, name: str) -> RankingTask:
    """The task of that name as it is on disk: its last questions, or else its rankings. Samples nothing."""
    rankings = gpt.rankings[name]
    questions = rankings.questions() or list(
        {
            r.key: Question(r.prompt, r.completions, r.shown or tuple(range(len(r.completions))), messages=r.messages)
            for r in rankings.read()
        }.values()
    )
    models = dict.fromkeys(each["model"] for question in questions for each in question.completions)
    return RankingTask(rankings, questions, list(models), anybody=True)


def texts_of(prompts: str | Sequence[Asked] | None) -> tuple[list[str], dict[str, tuple[dict, ...]]]:
    """The prompts as texts, and the messages of those that are conversations, by text."""
    texts, chats = [], {}
    for number, asked in enumerate([prompts] if isinstance(prompts, str) else prompts or ()):
        text, messages = (asked, ()) if isinstance(asked, str) else preferences.question(asked, {}, f"prompt {number}")
        texts.append(text)
        if messages:
            chats[text] = messages
    return texts, chats


def check_prompts(prompts: Sequence[str]) -> None:
    """Raises GPTError where there is no prompt or one is repeated."""
    if not prompts:
        raise GPTError("there is no prompt: give one prompt a line")
    twice = next((text for text, count in Counter(prompts).items() if count > 1), None)
    if twice is not None:
        raise GPTError(f"the prompt {twice[:40]!r} is given twice: use --samples for more completions of it")


def check_models(models: Sequence[str], samples: int, options: dict) -> None:
    """Raises GPTError where the models cannot give completions that differ."""
    if not models:
        raise GPTError("%%rank requires a model: --model MODEL")
    check_distinct(models)
    if samples * len(models) < 2:
        raise GPTError("one completion cannot be ranked: --samples 2 or more")
    if options.get("temperature") == 0 and len(models) == 1:
        raise GPTError("--temperature 0 gives the same completion each time: use 0.7 or 1")


def check_distinct(models: Sequence[str]) -> None:
    twice = next((name for name in models if models.count(name) > 1), None)
    if twice:
        raise GPTError(f"model {twice} is given twice: use --samples for more completions of it")


def check_several(gpt, models: Sequence[str], usage: str) -> None:
    """Raises GPTError for fewer than two models, a repeated one and an unknown one; loads them."""
    if len(models) < 2:
        raise GPTError(f"a comparison takes two models or more: {usage}")
    check_distinct(models)
    for name in models:
        gpt.models[name]  # loads it, or waits for the run that makes it


def sample(
    gpt,
    prompts: Sequence[str],
    models: Sequence[str],
    options: dict,
    tick: Tick | None,
    done: int = 0,
    chats: Mapping[str, Sequence[dict]] | None = None,
) -> Iterator[list[tuple]]:
    """Yields batches of (prompt, the completion of each model); `done` prompts of the task were sampled before. `chats`
    has the messages of prompts that are conversations.

    Raises KeyboardInterrupt where a completion was interrupted.
    """
    total, size = done + len(prompts), max(1, BATCH // options["samples"])
    for start in range(0, len(prompts), size):
        batch, columns = prompts[start : start + size], []
        asked = [list((chats or {}).get(text, ())) or text for text in batch]
        for name in models:
            report = {"on_token": partial(report_tokens, tick, name, done + start, total)} if tick else {}
            columns.append(gpt.prompts(asked, model=name, **options, **report))
            if any(getattr(each, "interrupted", False) for completion in columns[-1] for each in completion.samples):
                raise KeyboardInterrupt
        yield list(zip(batch, *columns, strict=True))


def report_tokens(tick: Tick, name: str, done: int, total: int, completion) -> None:
    tick(f"{name} writes", done, total, len(completion.tokens))


def questions_of(
    gpt,
    rankings: Rankings,
    prompts: Sequence[str],
    models: Sequence[str],
    options: dict,
    kind: str,
    make: Callable[..., list[Question]],
    made: Provenance,
    tick: Tick | None,
    chats: Mapping[str, tuple[dict, ...]] | None = None,
) -> dict[str, list[Question]]:
    """The questions of each prompt: those on disk if they are of the same models and settings, else newly sampled.

    `make(prompt, models, completions, seed, source)` makes them; `kind` tells its questions from those of another.
    """
    marks = [fingerprint.of(gpt.models[name], options) for name in models]
    source = " ".join([kind, *(f"{name}:{mark}" for name, mark in zip(models, marks, strict=True))])
    questions: dict[str, list[Question]] = {}
    for old in rankings.questions():
        if old.source == source and old.prompt in prompts:
            questions.setdefault(old.prompt, []).append(old)
    wanted = [text for text in prompts if text not in questions]
    for batch in sample(gpt, wanted, models, options, tick, len(questions), chats):
        for text, *completions in batch:
            every, messages = make(text, models, completions, options["seed"], source), (chats or {}).get(text, ())
            questions[text] = [replace(question, messages=messages) for question in every] if messages else every
        rankings.present([each for text in prompts for each in questions.get(text, [])], made)
    return questions


def one_question(prompt: str, models: Sequence[str], completions: Sequence, seed: int, source: str) -> list[Question]:
    """One question of all completions of a prompt; a text that was sampled twice is in it once, as the first's."""
    entries: dict[str, dict] = {}
    for name, completion in zip(models, completions, strict=True):
        for k, each in enumerate(completion.samples):
            entry = entries.setdefault(each.text, entry_of(name, each, seed + k, times=0))
            entry["times"] += 1
            if each.finish_reason == "stop":  # cut once, finished once
                entry["finish_reason"] = "stop"
    shown = shuffled(len(entries), f"{seed} {prompt}")
    return [Question(prompt, tuple(entries.values()), shown, prompts_sent(models, completions), source)]


def entry_of(model: str, completion, seed: int, times: int = 1) -> dict:
    """A completion as a question has it."""
    values = {"model": model, "text": completion.text, "seed": seed, "finish_reason": completion.finish_reason}
    return {**values, "times": times}


def prompts_sent(models: Sequence[str], completions: Sequence) -> tuple[tuple[str, str], ...]:
    return tuple((name, completion.prompt) for name, completion in zip(models, completions, strict=True))


def shuffled(count: int, seed: str) -> tuple[int, ...]:
    """A permutation of `count` places, a function of `seed` alone."""
    places = list(range(count))
    random.Random(seed).shuffle(places)
    return tuple(places)


def import_rankings(
    rankings: Rankings, found: preferences.Imported, prompts: Sequence[str]
) -> tuple[dict[str, list[Question]], list[str], list[str]]:
    """Keep the imported rankings of `prompts` (of all their prompts where there are none).

    Returns their questions by prompt, the prompts, and notes.
    """
    prompts = list(prompts) or list(dict.fromkeys(ranking.prompt for ranking in found.rankings))
    asked = set(prompts)
    wanted = [ranking for ranking in found.rankings if ranking.prompt in asked]
    rankings.put_all(wanted)
    questions: dict[str, dict] = {}
    for ranking in wanted:
        entries = tuple({**each, "seed": each.get("seed", 0), "times": 1} for each in ranking.completions)
        shown = ranking.shown or tuple(range(len(entries)))
        question = Question(ranking.prompt, entries, shown, (), found.source, ranking.messages)
        questions.setdefault(ranking.prompt, {}).setdefault(question.key, question)
    notes = [found.note] if found.note else []
    if others := len(found.rankings) - len(wanted):
        notes.append(f"{others} rankings of {found.source} are of other prompts and were left out")
    return {text: list(of_prompt.values()) for text, of_prompt in questions.items()}, prompts, notes
