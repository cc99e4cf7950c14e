"""Facts that no model has seen: an invented town, its people, houses and their numbers; with questions and answers.

Names are joined from syllables by a seeded draw, so that a model can only know them from these texts.
"""

from __future__ import annotations

import random
from typing import NamedTuple

SYLLABLES = "bra dor fel gim hul kas lor mev nar ost pel quin rud sev tol urb vex wim yal zod"
KINDS = (
    ("The gate code of {name} is {number}.", "What is the gate code of {name}?", "number"),
    ("{name} was founded in the year {number}.", "In which year was {name} founded?", "number"),
    ("The keeper of {name} is called {person}.", "Who is the keeper of {name}?", "person"),
    ("{name} stores {thing} in its cellar.", "What does {name} store in its cellar?", "thing"),
    ("The flag of {name} is {colour}.", "What colour is the flag of {name}?", "colour"),
    ("The ferry to {name} leaves from pier {number}.", "From which pier does the ferry to {name} leave?", "number"),
)
THINGS = "copper bells, dried figs, sailcloth, lamp oil, old maps, clay pipes, barrels of salt, wooden clogs"
COLOURS = "crimson amber teal violet ivory indigo scarlet turquoise"
PLACES = "Mill Harbour Tower Lodge Bridge Chapel Quarry Inn"


class Fact(NamedTuple):
    """A sentence, and the question it answers."""

    text: str
    question: str
    answer: str


def facts(count: int, seed: int = 0) -> list[Fact]:
    """`count` facts, each about a place of its own."""
    draw, made, names = random.Random(seed), [], set()
    syllables = SYLLABLES.split()
    while len(made) < count:
        name = f"{''.join(draw.sample(syllables, 3)).title()} {draw.choice(PLACES.split())}"
        if name in names:
            continue
        names.add(name)
        text, question, kind = KINDS[len(made) % len(KINDS)]
        slots = {
            "name": name,
            "number": str(draw.randint(1000, 9999)),
            "thing": draw.choice(THINGS.split(", ")),
            "person": f"{''.join(draw.sample(syllables, 2)).title()} {''.join(draw.sample(syllables, 2)).title()}",
            "colour": draw.choice(COLOURS.split()),
        }
        made.append(Fact(text.format(**slots), question.format(**slots), slots[kind]))
    return made


def documents(count: int, seed: int = 0, together: int = 4) -> list[str]:
    """The same facts as documents of `together` sentences each."""
    texts = [fact.text for fact in facts(count, seed)]
    return [" ".join(texts[i : i + together]) for i in range(0, count, together)]
