"""Ranking: K completions of each prompt, put in order by a person, by a judge, or by a file of what others said.

The questions and the answers are both on disk, so a person goes on where they stopped, in a new kernel too, and every
answer is kept under the name of whoever gave it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation import fingerprint
from jupyter_gpt.evaluation.agreement import kendalls_w, ranks
from jupyter_gpt.runs.provenance import Provenance, provenance
from jupyter_gpt.stages import judges as judging
from jupyter_gpt.stages import rankings_file
from jupyter_gpt.stages.compare import shuffled
from jupyter_gpt.stages.rankings import Question, Questions, Ranking, Rankings

AT_ONCE = 64  # completions sampled together; after each such lot all there are is on disk
Tick = Callable[[str, int, int, int], None]
Make = Callable[..., list[Question]]


@dataclass(frozen=True)
class Agreement:
    """Kendall's W, the mean over the `prompts` that several labellers ranked; `chance` is what lots would give."""

    w: float
    chance: float
    prompts: int
    labellers: tuple[str, ...]


class Ranked:
    """The questions asked under a name, and the answers there are; answers are on disk at the moment they are given.

    by: whose answers are asked for.  anybody: whether an answer of anybody else will do.
    notes: what there is to say of the files.  judged: what a judging model was sent and wrote, by question.
    """

    def __init__(
        self,
        rankings: Rankings,
        questions: Sequence[Question],
        models: Sequence[str],
        options: dict | None = None,
        *,
        by: str = "person",
        anybody: bool = False,
        notes: Sequence[str] = (),
    ):
        self.rankings, self.questions, self.models = rankings, list(questions), list(models)
        self.options, self.by, self.anybody, self.notes = options or {}, by, anybody, list(notes)
        self.judged: dict[int, list] = {}
        self.given: list[tuple[int, str, Ranking | None]] = []  # question, labeller, what was replaced: for `undo`

    @property
    def name(self) -> str:
        return self.rankings.name

    @property
    def answers(self) -> list[dict[str, Ranking]]:
        """For each question who ranked it and how, oldest first."""
        found: list[dict[str, Ranking]] = [{} for _ in self.questions]
        places = {question.key: i for i, question in enumerate(self.questions)}
        for ranking in self.rankings.read():
            if ranking.key in places:
                answers = found[places[ranking.key]]
                answers.pop(ranking.by, None)
                answers[ranking.by] = ranking
        return found

    def answer(self, i: int, answers: list | None = None) -> Ranking | None:
        """How question `i` was ranked: by whoever is asked here, else, where that will do, by somebody else."""
        known = (self.answers if answers is None else answers)[i]
        others = list(known.values()) if self.anybody else []
        return known.get(self.by) or (others[-1] if others else None)

    @property
    def missing(self) -> list[int]:
        """The questions that wait for an answer: there are texts to tell apart, and none is given."""
        answers = self.answers
        return [i for i, q in enumerate(self.questions) if q.open and self.answer(i, answers) is None]

    @property
    def labellers(self) -> dict[str, int]:
        """Who ranked how many of the questions."""
        found: dict[str, int] = {}
        for by in (by for answers in self.answers for by in answers):
            found[by] = found.get(by, 0) + 1
        return found

    @property
    def agreement(self) -> Agreement | None:
        """How far the labellers agree; None where no prompt has been ranked, but for ties of all, by two of them."""
        shared = [answers for answers in self.answers if len(answers) > 1]
        each = [(kendalls_w([r.order for r in answers.values()]), len(answers)) for answers in shared]
        told = [(w, m) for w, m in each if w is not None]
        if not told:
            return None
        chance = sum(1 / m for _, m in told) / len(told)
        who = dict.fromkeys(by for answers in shared for by in answers)
        return Agreement(sum(w for w, _ in told) / len(told), chance, len(told), tuple(who))

    @property
    def table(self):
        """A DataFrame, one row a completion: prompt, model, seed, text, and a column of ranks a labeller (1 is
        best).
        """
        import pandas

        answers, rows = self.answers, []
        for question, known in zip(self.questions, answers, strict=True):
            given = {by: ranks(ranking.order) for by, ranking in known.items()}
            for place, each in enumerate(question.entries):
                said = {by: found[place] for by, found in given.items()}
                rows.append({"prompt": question.prompt, **each, **said})
        return pandas.DataFrame(rows, columns=["prompt", "model", "seed", "text", *self.labellers])

    def rank(self, i: int, order: Sequence[Sequence[int]], reason: str = "", by: str | None = None) -> None:
        """Answer question `i`: groups of places in its completions, the best first, those of a group tied.

        Replaces an earlier answer of the same labeller. Raises GPTError for no such question, and for an order that
        does not name each completion once.
        """
        if not 0 <= i < len(self.questions):
            raise GPTError(f"there is no question {i}: {self.name} has {len(self.questions)}, counted from 0")
        question, by = self.questions[i], by or self.by
        if sorted(place for group in order for place in group) != list(range(len(question.completions))):
            raise GPTError(
                f"an order names each of the {len(question.completions)} completions once, not {order!r:.60}"
            )
        groups = tuple(tuple(group) for group in order if group)
        before = self.rankings.latest(by).get(question.key)
        self.rankings.put(
            Ranking(question.prompt, question.entries, groups, question.shown, by, time.time(), reason.strip())
        )
        self.given.append((i, by, before))

    def undo(self) -> int | None:
        """Take back the last answer given here, and bring back the one it replaced; which question, None for none."""
        if not self.given:
            return None
        i, by, before = self.given.pop()
        if before is None:
            self.rankings.withdraw(self.questions[i].key, by)
        else:
            self.rankings.put(before)
        return i

    def __repr__(self) -> str:
        return f"<rankings {self.name}: {len(self.questions)} prompts, {len(self.missing)} not ranked>"


def rank(
    gpt,
    name: str,
    prompts: Sequence[str] = (),
    *,
    model: str | Sequence[str] | None = None,
    samples: int = 4,
    seed: int = 0,
    by: str = "person",
    judge: Callable[[str, str], float] | str | None = None,
    rankings_file: str | None = None,
    overwrite: bool = False,
    tick: Tick | None = None,
    **options,
) -> Ranked:
    """Sample `samples` completions of each prompt from `model` (or of several), to be ranked under `name`.

    `options` are those of `gpt.prompts`. `judge`, a function `f(prompt, completion) -> float` (higher is better) or the
    name of a model, ranks at once; `rankings_file` takes over what a file says of these prompts (of all its own where
    `prompts` is empty), and only the others are sampled. `tick(what, done, total, tokens)` is told how far it is.
    An interrupt keeps what is sampled and ranked by then. Other questions than those asked under this name by another
    cell are asked only if `overwrite`; rankings that were given stay. Raises GPTError for what cannot be asked.
    """
    store.check_name(name)
    prompts, models = ([given] if isinstance(given, str) else list(given or ()) for given in (prompts, model))
    rankings = gpt.rankings.named(name)
    asked_for = {"prompts": prompts or str(rankings_file), "model": models, "samples": samples, "seed": seed, **options}
    new = provenance("rank", asked_for)
    Questions(rankings).claim(prompts, new, overwrite)
    notes = [note for note in (rankings.torn,) if note]
    taken: dict[str, list[Question]] = {}
    if rankings_file is not None:
        if judge is not None:
            raise GPTError("the rankings come from a judge or from a file, not from both: leave one out")
        taken, prompts, said = take_over(rankings, rankings_file, prompts)
        notes += said
    check(prompts, models, samples, options, [text for text in prompts if text not in taken])
    judge = judging.check(gpt, judge)
    asked = [text for text in prompts if text not in taken]
    fresh = (
        sampled(gpt, rankings, asked, models, samples, {**options, "seed": seed}, together, new, tick) if asked else {}
    )
    questions = [question for text in prompts for question in (taken.get(text) or fresh[text])]
    Questions(rankings).write(questions, new)
    whole = {**options, "seed": seed, "samples": samples}
    anybody = judge is not None or rankings_file is not None
    found = Ranked(rankings, questions, models, whole, by=by, anybody=anybody, notes=notes)
    if judge is not None:
        judging.judge(gpt, found, judge, tick)
        found.given.clear()
    return found


def reopened(gpt, name: str) -> Ranked:
    """The rankings of that name as they stand: what was last asked, or else what was answered. Samples nothing."""
    rankings = gpt.rankings[name]
    questions = Questions(rankings).read() or list(
        {
            r.key: Question(r.prompt, r.completions, r.shown or tuple(range(len(r.completions))))
            for r in rankings.read()
        }.values()
    )
    models = dict.fromkeys(each["model"] for question in questions for each in question.completions)
    return Ranked(rankings, questions, list(models), anybody=True, notes=[rankings.torn] if rankings.torn else [])


def check(prompts: Sequence[str], models: Sequence[str], samples: int, options: dict, asked: Sequence[str]) -> None:
    """Refuse what cannot be ranked, before any model has written a word."""
    if not prompts:
        raise GPTError("there is nothing to rank: give one prompt a line")
    again = next((text for text in prompts if prompts.count(text) > 1), None)
    if again is not None:
        raise GPTError(f"the prompt {again[:40]!r} is there twice: for more completions of it say --samples")
    if not asked:
        return
    if not models:
        raise GPTError("say whose completions are to be ranked: --model MODEL")
    twice = next((name for name in models if models.count(name) > 1), None)
    if twice:
        raise GPTError(f"model {twice} is there twice: for more completions of it say --samples")
    if samples * len(models) < 2:
        raise GPTError("one completion cannot be ranked: --samples 2 or more")
    if options.get("temperature") == 0 and len(models) == 1:
        raise GPTError("--temperature 0 writes the same completion each time: leave it out, or say 0.7 or 1")


def sampled(
    gpt,
    rankings: Rankings,
    prompts: Sequence[str],
    models: Sequence[str],
    samples: int,
    options: dict,
    make: Make,
    new: Provenance,
    tick: Tick | None,
) -> dict[str, list[Question]]:
    """The questions of each prompt: those asked before if they came from the same models in the same way, else anew.

    `make(prompt, models, completions, seed, source)` makes them. Every lot is on disk before the next is sampled.
    """
    earlier: dict[tuple, list[Question]] = {}
    for known in Questions(rankings).read():
        earlier.setdefault((known.prompt, known.source), []).append(known)
    marks = [fingerprint.of(gpt.models[name], {**options, "samples": samples}) for name in models]
    source = " ".join([make.__name__, *(f"{name}:{mark}" for name, mark in zip(models, marks, strict=True))])
    found = {text: earlier[text, source] for text in prompts if (text, source) in earlier}
    wanted = [text for text in prompts if text not in found]
    size = max(1, AT_ONCE // samples)
    for at in range(0, len(wanted), size):
        lot = wanted[at : at + size]
        columns = []
        for name in models:
            if tick:
                options["on_token"] = partial(told, tick, name, len(found), len(prompts))
            columns.append(gpt.prompts(lot, model=name, samples=samples, **options))
            if any(getattr(sample, "interrupted", False) for done in columns[-1] for sample in done.samples):
                raise KeyboardInterrupt
        for text, *done in zip(lot, *columns, strict=True):
            found[text] = make(text, models, done, options["seed"], source)
        Questions(rankings).write([each for text in prompts for each in found.get(text, [])], new)
    return found


def told(tick: Tick, name: str, done: int, total: int, completion) -> None:
    tick(f"{name} writes", done, total, len(completion.tokens))


def together(prompt: str, models: Sequence[str], completions: Sequence, seed: int, source: str) -> list[Question]:
    """One question of all that the models wrote; a text that was sampled twice is asked about once, as the first's."""
    entries: dict[str, dict] = {}
    for name, completion in zip(models, completions, strict=True):
        for k, sample in enumerate(completion.samples):
            new = {
                "model": name,
                "text": sample.text,
                "seed": seed + k,
                "finish_reason": sample.finish_reason,
                "times": 0,
            }
            entry = entries.setdefault(sample.text, new)
            entry["times"] += 1
            if sample.finish_reason == "stop":  # cut once, but seen to end there
                entry["finish_reason"] = "stop"
    sent = tuple((name, completion.prompt) for name, completion in zip(models, completions, strict=True))
    return [Question(prompt, tuple(entries.values()), shuffled(len(entries), f"{seed} {prompt}"), sent, source)]


def take_over(
    rankings: Rankings, file: str, prompts: Sequence[str]
) -> tuple[dict[str, list[Question]], list[str], list[str]]:
    """Keep what a file says of `prompts` (of all, where there are none): its questions by prompt, the prompts,
    notes.
    """
    found, note = rankings_file.read(file)
    prompts = list(prompts) or list(dict.fromkeys(ranking.prompt for ranking in found))
    known = {(old.key, old.by): old.order for old in rankings.read()}
    questions: dict[str, dict] = {}
    for ranking in (ranking for ranking in found if ranking.prompt in prompts):
        if known.get((ranking.key, ranking.by)) != ranking.order:
            rankings.put(ranking)
        entries = tuple({**each, "seed": each.get("seed", 0), "times": 1} for each in ranking.completions)
        shown = ranking.shown or tuple(range(len(entries)))
        asked = Question(ranking.prompt, entries, shown, (), str(file))
        questions.setdefault(ranking.prompt, {}).setdefault(asked.key, asked)
    left = sum(ranking.prompt not in prompts for ranking in found)
    notes = [note] if note else []
    if left:
        notes.append(f"{left} rankings of {file} are of other prompts and were left out")
    return {text: list(asked.values()) for text, asked in questions.items()}, prompts, notes
