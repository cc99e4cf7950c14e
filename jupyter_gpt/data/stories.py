"""Very short stories from a small world, endless and seeded, with what is true in each kept beside its text.

A plot is a script (`stories.txt`): beats with several wordings, branches with different outcomes, facts tied to the
beats that state them. A story casts the plot from tables (`stories_world.txt`), takes a branch, picks a wording for
each beat and fills the slots. Since the generator knows the world, each question about a story has a right answer by
construction.

A story depends on (seed, index) alone: only `Random(str)` and `.random()` are used, whose results Python promises to
keep the same in every version.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import count, product
from pathlib import Path
from random import Random
from typing import NamedTuple

MARK = "\x1f"  # separates the parts of a story while their slots are filled, all at once
Row = dict[str, str]  # slot: phrase

PRONOUNS = {"boy": ("he", "him", "his"), "girl": ("she", "her", "her")}
NAMES = {
    "boy": "Tom Ben Sam Leo Max Finn Jack Theo Hugo Oscar Noah Eli Luke Adam Peter Omar Ravi Kai Milo "
    "Felix Amir Simon Otto Ivan Hans Mateo Jonas Emil Abel Toby",
    "girl": "Lily Mia Anna Sara Ella Nora Zoe Lucy Emma Ida Clara Maya Nina Rosa Tess Molly Ruth Leila "
    "Ines Freya Amina Kate Julia Yuki Priya Elsa Greta Hannah Vera Alma",
}
BEAST_NAMES = {
    "boy": "Pip Bramble Rufus Bruno Nutkin Tuft Oakley Monty Basil Dusty",
    "girl": "Hazel Tansy Poppy Fern Clover Willow Juniper Bonnie Mossy Dot",
}
BEASTS = "fox; rabbit; bear; mouse; hedgehog; squirrel; badger; otter; frog; mole; beaver; raccoon"
KIN = """mother | Mom | girl; father | Dad | boy; mother | Mom | girl; father | Dad | boy; grandmother | Grandma | girl
grandfather | Grandpa | boy; aunt | Auntie | girl; uncle | Uncle | boy"""
COLOURS = "red, blue, green, yellow, orange, purple, white, silver, little, old"
TOYS = (
    "ball, doll, teddy bear, boat, train, drum, top, puppet, marble, toy car, wooden horse, robot, paper bird, "
    "music box, whistle, toy truck"
)
HARD_TOYS = "drum, boat, train, puppet, toy car, wooden horse, robot"
SOFT_TOYS = "doll, teddy bear, kite, cloth rabbit, puppet, ball, hat"


class Fact(NamedTuple):
    """Something true in a story: `value` is a phrase of its text, `answer` a whole sentence that holds it."""

    subject: str
    relation: str
    value: str
    question: str
    answer: str


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


def with_article(phrase: str) -> str:
    """`phrase` with "a" or "an" before it, by spelling: the world has no "hour" and no "unicorn"."""
    return ("an " if phrase[0].lower() in "aeiou" else "a ") + phrase


def table(columns: str, text: str) -> tuple[Row, ...]:
    """The rows of a text table, in the format that `stories_world.txt` describes."""
    names = [name.strip() for name in columns.split("|")]
    rows = []
    for line in text.replace(";", "\n").splitlines():
        if not line.strip():
            continue
        row: Row = {}
        for name, cell in zip(names, (cell.strip() for cell in line.split("|")), strict=True):
            row[name.rstrip("*")] = cell
            if name.endswith("*"):
                row["a_" + name.rstrip("*")] = with_article(cell)
        rows.append(row)
    return tuple(rows)


def person(name: str, gender: str, prefix: str = "") -> Row:
    """The slots of one character: hero `{n} {he} {He} {him} {his} {His}`, friend `{f} {fhe} {fHe} ...`."""
    he, him, his = PRONOUNS[gender]
    row = {"he": he, "him": him, "his": his, "He": he.title(), "His": his.title(), "child": gender}
    return {prefix + key: value for key, value in row.items()} | {prefix or "n": name}


def people(prefix: str, names: dict[str, str]) -> tuple[Row, ...]:
    return tuple(person(name, gender, prefix) for gender in names for name in names[gender].split())


def coloured(things: str) -> tuple[Row, ...]:
    """Every thing in every colour: `{thing}` = "red ball", `{a_thing}` = "a red ball", `{toy}` = "ball"."""
    pairs = [(f"{colour} {thing}", thing) for thing in things.split(", ") for colour in COLOURS.split(", ")]
    return tuple({"thing": phrase, "a_thing": with_article(phrase), "toy": thing} for phrase, thing in pairs)


def sections(file: str) -> list[list[str]]:
    """The sections of a script: a header `== name: …` or `@@ name`, then its lines, without comments."""
    scripts: list[list[str]] = []
    for line in Path(__file__).with_name(file).read_text(encoding="ascii").splitlines():
        if line.startswith(("@@ ", "== ")):
            scripts.append([])
        if line and not line.startswith("#"):
            scripts[-1].append(line)
    return scripts


@cache
def tables() -> dict[str, tuple[Row, ...]]:
    """The tables that a plot may cast, by name."""
    kin = table("kin | Mom | gender", KIN)
    by_name = {
        "hero": people("", NAMES),
        "friend": people("f", NAMES),
        "beast": people("", BEAST_NAMES),
        "other": people("f", BEAST_NAMES),
        "kind": table("child*", BEASTS),
        "fkind": table("fkind*", BEASTS),
        "kin": tuple({"kin": row["kin"], "Mom": row["Mom"]} | person("", row["gender"], "k") for row in kin),
        "toy": coloured(TOYS),
        "hard": coloured(HARD_TOYS),
        "soft": coloured(SOFT_TOYS),
    }
    for header, *rows in sections("stories_world.txt"):
        name, _, columns = header[3:].partition(": ")
        by_name[name] = table(columns, "\n".join(rows))
    return by_name


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
    cast = []
    for word in words.split():
        key, _, values = word.partition("=")
        cells = values.replace("_", " ").replace(",", ";")
        cast.append(table(f"{key}*", cells) if cells else tables()[key])
    return tuple(cast)


@cache
def plots() -> tuple[Plot, ...]:
    """Every plot of `stories.txt`, which says how a script is written; read once."""
    scripts = sections("stories.txt")
    parts = {header[3:]: parse_beats(body) for header, *body in scripts if header.startswith("@@")}
    all_plots = []
    for header, *lines in scripts[len(parts) :]:
        name, _, words = header[3:].partition(":")
        beats: list[Beat] = []
        for beat in parse_beats(lines):
            part = re.fullmatch(r"@(\w+)", beat.wordings[0][0])
            beats += [inner._replace(branch=beat.branch) for inner in parts[part[1]]] if part else [beat]
        choices = sorted({beat.branch for beat in beats} - {""}) or [""]
        branches = tuple(tuple(b for b in beats if b.branch in ("", choice)) for choice in choices)
        all_plots.append(Plot(name, parse_cast(words), branches))
    return tuple(all_plots)


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
    sentences = []
    for beat in plot.branches[int(random() * len(plot.branches))]:
        if beat.optional and random() < 0.5:
            continue
        wording = beat.wordings[int(random() * len(beat.wordings))]
        sentences.append((wording[int(random() * len(wording))], beat.facts))
    return plot.name, slots, sentences


def beats(seed: int | str, index: int) -> list[tuple[str, tuple[Fact, ...]]]:
    """Story `index` beat by beat: the text of each, and the facts it states."""
    _, slots, sentences = cast(seed, index)
    return [filled(sentence, facts, slots) for sentence, facts in sentences]


def filled(text: str, facts: Iterable[str], slots: Row) -> tuple[str, tuple[Fact, ...]]:
    """A text and the facts it states, their slots filled."""
    text, *fields = MARK.join([text, *facts]).format_map(slots).split(MARK)
    return text, tuple(Fact(*fields[i : i + 5]) for i in range(0, len(fields), 5))


def documents(seed: int = 0) -> Iterator[str]:
    """The texts of stories 0, 1, 2, ... of `seed`, without end."""
    for index in count():
        _, slots, sentences = cast(seed, index)
        yield " ".join(sentence for sentence, _ in sentences).format_map(slots)
