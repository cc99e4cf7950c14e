"""Does a source say what a sentence says? By words, so that "yes" can be relied on and "no" may be a paraphrase.

A source supports a sentence when one passage of it (a sentence, with the one that its first pronoun stands for)

- has every word that the sentence adds to the question, endings and spelt-out numbers apart,
- has, together with the sentence that opens the source, two thirds of the words that it shares with the question,
- has its numbers beside the same words,
- denies what it denies and nothing else of it ("not", "no longer", "instead of"),
- compares the same way round ("larger than"), and has the same name after "by",

and when the source has all its names. A sentence that adds nothing to the question says nothing, unless it was asked
whether.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from jupyter_gpt.retrieval.keyword import CJK, COMMON, root
from jupyter_gpt.retrieval.numbers import number

TOKEN = re.compile(
    rf"[{CJK}]|\d+(?:[.,:/]\d+)*(?=[^\W\d_]{{2}}|[\W_]|$)|[^\W_]+n[’']t\b|[^\W_{CJK}]+(?:\.[^\W_{CJK}]+)*"
)
DENIALS = "not never no neither nor cannot without instead rather drop drops dropped lack lacks lacked"
SLIGHT = (
    "about according also almost answer approximately around because call called can come describe described "
    "document due each "
    "get give given go make may mean mention mentioned might must name named nearly now one per roughly said say "
    "says shall "
    "should show shown shows since some something source state stated states tell tells text then thing yes "
    "d ll m nd rd re s st th ve"
)
PERSONAL = "it its they their he his she her this these that those there"
DENY, LIGHT, PRONOUNS = frozenset(DENIALS.split()), frozenset(SLIGHT.split()), frozenset(PERSONAL.split())
ASKS_WHETHER = re.compile(
    r"(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|may|might|must|should)\b", re.IGNORECASE
)
ANSWER = re.compile(r"^\W*(?:the|my) answer(?: to (?:the|this|that|your) question)? is\b\W*", re.IGNORECASE)
NEAR = 3  # words between a number and the word that it stands beside, at most
ENOUGH = 2 / 3  # of the words that a sentence shares with the question


@dataclass(frozen=True)
class Word:
    """A word that means something, in sentence `line`. denied: by a "not" before it; compared: after a "than"; agent:
    after a "by"; single: after an "a"."""

    text: str
    root: str
    line: int
    name: bool = False
    denied: bool = False
    compared: bool = False
    agent: bool = False
    single: bool = False

    @property
    def exact(self) -> bool:
        """Whether nothing else will do in its place: a number, a name, or a code such as X200."""
        return self.name or any(c.isdigit() for c in self.root)


@dataclass(frozen=True)
class Support:
    """`share`: of the sentence's words that the source has; `reason`: why it does not support it, "" where it does."""

    share: float
    reason: str


def parsed(sentence: str, line: int = 0) -> list[Word]:
    """The words of a sentence that mean something, in order."""
    words, denied, compared, agent, before = [], False, False, False, ""
    for match in TOKEN.finditer(sentence):
        token, rest = match[0].replace("’", "'"), sentence[match.end() :].lstrip()
        low = token.casefold()
        if low in DENY or low.endswith("n't"):
            denied = not rest.startswith("only")
            if words and not rest[:1].isalnum():  # "breakfast is included, dinner is not."
                words[-1], denied = replace(words[-1], denied=True), False
        elif low in ("than", "by"):
            compared, agent = compared or low == "than", low == "by"
        elif low not in COMMON and low not in LIGHT and not (low == "longer" and before == "no"):
            bare = number(token) or number(low) or root(low)
            name = token[0].isupper() and bool(before)
            words.append(Word(token, bare, line, name, denied, compared, agent, before in ("a", "an", "one")))
            denied = agent = False
        before = low
    return words


def support(sentence: str, source: Sequence[str], question: str) -> Support | None:
    """How a source, which is its sentences, supports a sentence; None where that one says nothing."""
    bare = ANSWER.sub("", sentence)
    stated, asked = parsed(bare), parsed(question)
    new = [word for word in stated if all(word.root != other.root for other in asked)]
    if not new:
        if not stated or not ASKS_WHETHER.match(question.rstrip().rsplit("\n", 1)[-1]):
            return None
        new = stated
    lines = [parsed(text, n) for n, text in enumerate(source)]
    roots = {word.root for line in lines for word in line}
    share = sum(word.root in roots for word in stated) / len(stated)
    if all(word.root[:1].isdigit() for word in stated):
        return Support(share, "a number alone can be one of anything")
    if strange := [word.text for word in stated if word.exact and word.root not in roots]:
        return Support(share, f"not in the source: {', '.join(strange[:3])}")
    opening = {word.root for word in lines[0]} if lines else set()
    shared = [word for word in stated if word not in new] or (
        asked if bare != sentence else []
    )  # "The answer is: 10 minutes"
    reasons = [refused(stated, new, shared, passage, opening) for passage in passages(source, lines)]
    return Support(share, min(reasons, default=(1, "the source is empty"))[1])


def passages(source: Sequence[str], lines: Sequence[list[Word]]) -> Iterator[list[Word]]:
    """Each sentence of a source; and where it begins with a pronoun, with the last one before it that does not."""
    yield from lines
    about: list[Word] = []
    for text, line in zip(source, lines, strict=True):
        start = TOKEN.search(text)
        if start and start[0].casefold() in PRONOUNS:
            yield [*about, *line]
        else:
            about = line


def refused(
    said: Sequence[Word], new: Sequence[Word], shared: Sequence[Word], passage: Sequence[Word], opening: set[str]
) -> tuple[int, str]:
    """Why a passage does not say it, "" where it does, after how much it lacks."""
    at: dict[str, list[int]] = {}
    for place, word in enumerate(passage):
        at.setdefault(word.root, []).append(place)
    if missing := [word.text for word in new if word.root not in at]:
        return 1 + len(missing), f"not in the source: {', '.join(missing[:3])}"
    if sum(word.root in at or word.root in opening for word in shared) < ENOUGH * len(shared):
        return 2, "the source says that of something else"
    for place, word in enumerate(said):
        places = at.get(word.root, [])
        same = [passage[i] for i in places]
        if same and all(other.denied != word.denied for other in same):
            return 1, f"the source {'denies' if same[0].denied else 'does not deny'}: {word.text}"
        if same and all(other.compared != word.compared for other in same):
            return 1, f"the source compares the other way round: {word.text}"
        if word.single and places and all(i and passage[i - 1].root[:1].isdigit() for i in places):
            return 1, f"the source has another number of {word.text}"
        if word.root[:1].isdigit() and word in new and not beside(said, place, passage, at, opening):
            return 1, f"the source has this number of something else: {word.text}"
        if word.agent and word.name and place and by_another(said, place, passage, at):
            return 1, f"the source names another than {word.text}"
    return 0, ""


def beside(
    said: Sequence[Word], place: int, passage: Sequence[Word], at: dict[str, list[int]], opening: set[str]
) -> bool:
    """Whether a number stands by its neighbours in the passage too, in one sentence; by other numbers as close as it
    does. What the sentence is about may be named where the source opens."""

    def near(i: int, j: int, apart: int) -> bool:
        most = apart if passage[j].root[:1].isdigit() else NEAR
        return abs(i - j) <= most and passage[i].line == passage[j].line

    about = {said[0].root} & opening if place == 1 else set()
    around = [(place + step, abs(step)) for step in (-1, 1, 2) if 0 <= place + step < len(said)]
    neighbours = [(said[i].root, apart) for i, apart in around if said[i].root not in about]
    return any(
        all(any(near(i, j, apart) for j in at.get(root, ())) for root, apart in neighbours)
        for i in at[said[place].root]
    )


def by_another(said: Sequence[Word], place: int, passage: Sequence[Word], at: dict[str, list[int]]) -> bool:
    """Whether what was done by this name was done by another one in the passage."""
    for verb in at.get(said[place - 1].root, ()):
        after = passage[verb + 1 :]
        if after and after[0].agent and after[0].name:
            names = [word.root for word in takewhile(lambda word: word.name, after)]
            if said[place].root not in names:
                return True
    return False
