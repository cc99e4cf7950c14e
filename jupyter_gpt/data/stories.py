"""Very short stories from a small world, endless and seeded, with what is true in each kept beside its text.

A plot is a script (`stories.txt`): beats with several wordings, branches with different outcomes, facts tied
to the beats that tell them. A story casts the plot from the tables of `stories_world.py`, takes a branch,
picks a wording for each beat and fills the slots. Since the teller knows the world, each question about a
story has a right answer by construction: later stages make conversations, preferences and retrieval of them.

A story depends on (seed, index) alone: only `Random(str)` and `.random()` are used, whose results Python
promises to keep the same in every version.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count, product
from pathlib import Path
from random import Random
from typing import NamedTuple

from jupyter_gpt.data.stories_world import TABLES, Row, table

MARK = "\x1f"  # stands between the pieces of a story while its slots are filled, all in one go


class Fact(NamedTuple):
    """Something true in a story: `value` is a phrase of its text, `answer` a whole sentence that holds it."""

    subject: str
    relation: str
    value: str
    question: str
    answer: str


@dataclass(frozen=True)
class Story:
    """One story: its text (one paragraph, plain ASCII), its facts (three or more), the name of its plot."""

    text: str
    facts: tuple[Fact, ...]
    plot: str = ""


class Beat(NamedTuple):
    """A step of a plot: `wordings[i][j]`, wording i in its j-th variant; the facts it tells, as templates."""

    wordings: tuple[tuple[str, ...], ...]
    facts: tuple[str, ...]
    optional: bool
    branch: str


class Plot(NamedTuple):
    """A plot: the tables it casts, in order, and for each branch the beats from start to end."""

    name: str
    cast: tuple[tuple[Row, ...], ...]
    branches: tuple[tuple[Beat, ...], ...]


def variants(wording: str) -> tuple[str, ...]:
    """ "A [big|small] dog" -> ("A big dog", "A small dog"), for every combination of the groups."""
    pieces = [piece.split("|") for piece in re.split(r"\[(.*?)\]", wording.strip())]
    return tuple("".join(chosen) for chosen in product(*pieces))


def fact_template(line: str) -> str:
    """ "? lost: What did {n} lose? {n} lost a <{toy}>." -> the five fields of a Fact, joined by MARK."""
    match = re.fullmatch(r"\? (\w+)(?: ([^:]+))?: (.+?\?) (.*<(.+)>.*)", line)
    if not match:
        raise ValueError(f"a fact is '? relation [subject]: question? answer with a <value>', not {line!r}")
    relation, subject, question, answer, value = match.groups()
    return MARK.join([subject or "{n}", relation, value, question, re.sub("[<>]", "", answer)])


def parse_beats(lines: list[str]) -> list[Beat]:
    """The beats of a script: `1:` of branch 1 only, `~` told half the time, `?` a fact of the line above."""
    beats: list[Beat] = []
    for line in lines:
        if line.startswith("?"):
            beats[-1] = beats[-1]._replace(facts=(*beats[-1].facts, fact_template(line)))
        elif line.startswith("/"):
            more = tuple(variants(wording) for wording in line[1:].split(" / "))
            beats[-1] = beats[-1]._replace(wordings=beats[-1].wordings + more)
        else:
            branch, optional, text = re.fullmatch(r"(\d?):?(~?)(.*)", line).groups()
            beats.append(Beat(tuple(map(variants, text.split(" / "))), (), bool(optional), branch))
    return beats


def parse_cast(words: str) -> tuple[tuple[Row, ...], ...]:
    """The tables of a header such as `hero toy trait=proud,vain`, the last being a table made on the spot."""
    tables = []
    for word in words.split():
        key, _, values = word.partition("=")
        cells = values.replace("_", " ").replace(",", ";")
        tables.append(table(f"{key}*", cells) if cells else TABLES[key])
    return tuple(tables)


@cache
def plots() -> tuple[Plot, ...]:
    """Every plot of `stories.txt`, which says how a script is written; read once."""
    lines = Path(__file__).with_name("stories.txt").read_text(encoding="ascii").splitlines()
    sections: list[list[str]] = []
    for line in lines:
        if line.startswith(("@@ ", "== ")):
            sections.append([])
        if line and not line.startswith("#"):
            sections[-1].append(line)
    parts = {header[3:]: parse_beats(body) for header, *body in sections if header.startswith("@@")}
    found = []
    for header, *lines in sections[len(parts) :]:
        name, _, words = header[3:].partition(":")
        beats: list[Beat] = []
        for beat in parse_beats(lines):
            part = re.fullmatch(r"@(\w+)", beat.wordings[0][0])
            beats += [inner._replace(branch=beat.branch) for inner in parts[part[1]]] if part else [beat]
        choices = sorted({beat.branch for beat in beats} - {""}) or [""]
        branches = tuple(tuple(b for b in beats if b.branch in ("", choice)) for choice in choices)
        found.append(Plot(name, parse_cast(words), branches))
    return tuple(found)


def cast(seed: int | str, index: int) -> tuple[str, Row, list[tuple[str, tuple[str, ...]]]]:
    """Story `index`: the name of its plot, who and what it is about, and its beats, each a wording and its facts, with
    the slots still open."""
    random = Random(f"{seed}/{index}").random
    every = plots()
    plot = every[int(random() * len(every))]
    slots: Row = {}
    for rows in plot.cast:
        row = rows[int(random() * len(rows))]
        while slots and (row.get("f") == slots["n"] or row.get("fkind") == slots["child"]):
            row = rows[int(random() * len(rows))]  # two characters never share a name, nor two beasts a kind
        slots.update(row)
    told = []
    for beat in plot.branches[int(random() * len(plot.branches))]:
        if beat.optional and random() < 0.5:
            continue
        wording = beat.wordings[int(random() * len(beat.wordings))]
        told.append((wording[int(random() * len(wording))], beat.facts))
    return plot.name, slots, told


def tell(seed: int | str, index: int, with_facts: bool) -> tuple[str, list[str]]:
    """The name of the plot of story `index`; its text, then the fields of its facts in a row."""
    plot, slots, told = cast(seed, index)
    text = " ".join(sentence for sentence, _ in told)
    if with_facts:
        text = MARK.join([text, *(fact for _, facts in told for fact in facts)])
    return plot, text.format_map(slots).split(MARK)


def beats(seed: int | str, index: int) -> list[tuple[str, tuple[Fact, ...]]]:
    """Story `index` beat by beat: the words of each, and the facts they tell."""
    _, slots, told = cast(seed, index)
    fill = [MARK.join([sentence, *facts]).format_map(slots).split(MARK) for sentence, facts in told]
    return [(text, tuple(Fact(*fields[i : i + 5]) for i in range(0, len(fields), 5))) for text, *fields in fill]


def story(seed: int | str, index: int) -> Story:
    """Story `index` of `seed`: a pure function, the same on every machine and in every Python version."""
    plot, (text, *fields) = tell(seed, index, with_facts=True)
    return Story(text, tuple(Fact(*fields[i : i + 5]) for i in range(0, len(fields), 5)), plot)


def documents(seed: int = 0) -> Iterator[str]:
    """The texts of stories 0, 1, 2, ... of `seed`, without end."""
    for index in count():
        yield tell(seed, index, with_facts=False)[1][0]
