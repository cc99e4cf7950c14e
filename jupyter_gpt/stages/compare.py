"""Comparing models: the same prompts and the same seeds to each, and a person's vote for the better one.

Votes are kept as rankings. They belong to the prompt and the very texts that were compared: asked again, the
same comparison finds the votes it already has, and one with other texts begins anew beside them.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.stages.rankings import Ranking, Rankings, key

TIE = "tie"


@dataclass(frozen=True)
class Row:
    """One prompt and one seed: the completions in the models' order, and the order to show them in."""

    prompt: str
    seed: int
    completions: tuple
    shown: tuple[int, ...]

    @property
    def texts(self) -> list[str]:
        return [completion.text for completion in self.completions]

    @property
    def same(self) -> bool:
        """Whether all models wrote the same: then there is nothing to vote on."""
        return len(set(self.texts)) == 1


class Comparison:
    """What the models wrote, row by row, and the votes; votes are on disk at the moment they are given."""

    def __init__(self, models: Sequence[str], rows: Sequence[Row], rankings: Rankings, options: dict | None = None):
        self.models, self.rows, self.rankings, self.options = (
            list(models),
            list(rows),
            rankings,
            options or {},
        )
        self.given: list[int] = []  # the rows voted on through this object, for `undo`

    def entries(self, row: int) -> list[dict]:
        """The completions of a row as a ranking holds them."""
        found = self.rows[row]
        return [
            {"model": m, "text": c.text, "seed": found.seed, "finish_reason": c.finish_reason}
            for m, c in zip(self.models, found.completions, strict=True)
        ]

    def key(self, row: int) -> tuple:
        return key(self.rows[row].prompt, self.entries(row))

    @property
    def choices(self) -> list[int | str | None]:
        """For each row the place of the best model, `tie`, or None where no vote is given."""
        known = self.rankings.latest()
        found = [known.get(self.key(row)) for row in range(len(self.rows))]
        return [None if r is None else r.order[0][0] if len(r.order[0]) == 1 else TIE for r in found]

    @property
    def votes(self) -> list[str | None]:
        """For each row the name of the best model, `tie`, or None where no vote is given."""
        return [self.models[choice] if isinstance(choice, int) else choice for choice in self.choices]

    @property
    def missing(self) -> list[int]:
        """The rows that wait for a vote: none given, and the texts differ."""
        return [i for i, choice in enumerate(self.choices) if choice is None and not self.rows[i].same]

    @property
    def tally(self) -> dict[str, int]:
        """How many votes each model and `tie` have."""
        votes = self.votes
        return {name: votes.count(name) for name in (*self.models, TIE)}

    @property
    def table(self):
        """A DataFrame: prompt, seed, a column of texts a model, and the vote (None where there is none)."""
        import pandas

        columns = {"prompt": [row.prompt for row in self.rows], "seed": [row.seed for row in self.rows]}
        texts = {name: [row.texts[i] for row in self.rows] for i, name in enumerate(self.models)}
        return pandas.DataFrame({**columns, **texts, "vote": pandas.Series(self.votes, dtype="object")})

    def vote(self, row: int, best: str, by: str = "person") -> None:
        """Vote for the model that wrote the best of `row`, or `tie`; replaces an earlier vote there.

        Raises GPTError for what is neither.
        """
        if best not in (*self.models, TIE):
            raise GPTError(f"a vote is for {', '.join(self.models)} or {TIE}, not {best!r}{nearest(best, self.models)}")
        if not 0 <= row < len(self.rows):
            raise GPTError(f"there is no row {row}: this comparison has {len(self.rows)}, counted from 0")
        self.choose(row, self.models.index(best) if best in self.models else None, by)

    def choose(self, row: int, place: int | None, by: str = "person") -> None:
        """`vote` by the model's place; None is a tie."""
        everyone = range(len(self.models))
        rest = tuple(i for i in everyone if i != place)
        order = (rest,) if place is None else ((place,), rest)
        self.rankings.put(
            Ranking(self.rows[row].prompt, tuple(self.entries(row)), order, self.rows[row].shown, by, time.time())
        )
        self.given = [*(i for i in self.given if i != row), row]

    def undo(self) -> int | None:
        """Take back the last vote that was given here; returns its row, or None when there is none."""
        if not self.given:
            return None
        row = self.given.pop()
        self.rankings.withdraw(self.key(row))
        return row

    def __repr__(self) -> str:
        rows = f"{len(self.rows)} rows, {len(self.missing)} without a vote"
        return f"<comparison of {', '.join(self.models)}: {rows}>"


def compare(
    gpt,
    models: Sequence[str],
    prompts: Sequence[str],
    *,
    rankings: str | None = None,
    samples: int = 1,
    seed: int = 0,
    tick: Callable[[str, int, int], None] | None = None,
    **options,
) -> Comparison:
    """Give the same prompts with the same seeds to each model; `options` are those of `gpt.prompts`.

    `rankings` names the file that keeps the votes (default: by the models). `tick(model, how many are done,
    tokens so far of its first completion)` is told now and then. An interrupt ends it: a text that was cut
    short compares with nothing. Raises GPTError for fewer than two models, one twice, an unknown one, and no
    prompt or one twice.
    """
    models, prompts = ([given] if isinstance(given, str) else list(given) for given in (models, prompts))
    check(gpt, models, prompts, samples)
    file = gpt.rankings.named(rankings or default_name(models))
    columns = []
    for done, name in enumerate(models):
        if tick:
            tick(name, done, 0)
            options["on_token"] = partial(told, tick, name, done)
        columns.append(gpt.prompts(prompts, model=name, samples=samples, seed=seed, **options))
        if any(getattr(sample, "interrupted", False) for found in columns[-1] for sample in found.samples):
            raise KeyboardInterrupt
    options.pop("on_token", None)
    rows = []
    for i, prompt in enumerate(prompts):
        for k in range(samples):
            completions = tuple(column[i].samples[k] for column in columns)
            rows.append(Row(prompt, seed + k, completions, shuffled(len(models), f"{seed + k} {i} {prompt}")))
    return Comparison(models, rows, file, {**options, "seed": seed, "samples": samples})


def told(tick: Callable[[str, int, int], None], name: str, done: int, completion) -> None:
    tick(name, done, len(completion.tokens))


def check(gpt, models: Sequence[str], prompts: Sequence[str], samples: int, how: str = "%%compare MODEL MODEL") -> None:
    """Refuse what cannot be compared, before any model has written a word."""
    if len(models) < 2:
        raise GPTError(f"to compare takes two models or more: {how}")
    twice = next((name for name in models if models.count(name) > 1), None)
    if twice:
        raise GPTError(f"model {twice} is there twice: compare it with another, or see its samples with --samples")
    for name in models:
        gpt.models[name]  # loads it, or waits for the run that makes it
    if not prompts:
        raise GPTError("there is nothing to prompt the models with: give one prompt a line")
    again = next((text for text in prompts if prompts.count(text) > 1), None)
    if again is not None:
        raise GPTError(f"the prompt {again[:40]!r} is there twice: for more than one sample of each say --samples")
    if samples < 1:
        raise GPTError(f"--samples is at least 1, not {samples}")


def shuffled(count: int, seed: str) -> tuple[int, ...]:
    """An order of `count` places that `seed` decides."""
    places = list(range(count))
    random.Random(seed).shuffle(places)
    return tuple(places)


def default_name(models: Sequence[str]) -> str:
    """`A-vs-B`; shortened, with a digest, where that would be too long for a name."""
    return shortened("-vs-".join(models))


def shortened(name: str) -> str:
    """The name, or as much of it as a name may have with a digest of the whole."""
    return name if len(name) <= 64 else f"{name[:55]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
