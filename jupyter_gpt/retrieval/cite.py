"""Citation check: is each sentence of an answer supported by the sources it was given?

A sentence is supported where one source supports it, or where each of its clauses is supported by one of them. The
check compares words and favours precision: "supported" can be relied on, and "not supported" may be a paraphrase. A
source supports a sentence when one passage of it (a sentence, with the one that its first pronoun refers to)

- has every word that the sentence adds to the question, endings and spelt-out numbers apart,
- has, together with the heading and the sentence that open the source, two thirds of the words that it shares with the
  question,
- has its numbers beside the same words,
- negates what it negates and nothing else of it ("not", "no longer", "instead of"),
- compares the same way round ("larger than"), and has the same name after "by",

and when the source has all its names. A sentence that adds nothing to the question says nothing, unless the question
asks whether.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile

from jupyter_gpt.retrieval.keyword import CJK, COMMON, root
from jupyter_gpt.retrieval.numbers import number

SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*(?:\s*\[\d+\])*\s+(?=[\"'“‘(\[]?[A-Z0-9À-ÞА-Я])|\n+|(?<=[。！？])")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|vs|e\.g|i\.e|Fig|[A-Z])\.$")
NUMBERED = re.compile(r"\bNo\.$")  # before a digit; elsewhere it is an answer
CITATION = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
CLAUSE = re.compile(r"[,;:]?\s+(?:and|but|while|whereas)\s+|;\s+")
RUN = 4  # words in a row that count as a quotation
SUPPORTED, ELSEWHERE, UNSUPPORTED, NOTHING = "supported", "supported by another source", "not supported", "says nothing"


TOKEN = re.compile(
    rf"[{CJK}]|\d+(?:[.,:/]\d+)*(?=[^\W\d_]{{2}}|[\W_]|$)|[^\W_]+n[’']t\b|[^\W_{CJK}]+(?:\.[^\W_{CJK}]+)*"
)
DENIALS = "not never no neither nor cannot without instead rather drop drops dropped lack lacks lacked"
SLIGHT = (
    "about according also almost answer approximately around because call called can come describe described document "
    "due each get give given go make may mean mention mentioned might must name named nearly now one per roughly said "
    "say says shall should show shown shows since some something source state stated states tell tells text then thing "
    "yes d ll m nd rd re s st th ve"
)
PERSONAL = "it its they their he his she her this these that those there"
DENY, LIGHT, PRONOUNS = frozenset(DENIALS.split()), frozenset(SLIGHT.split()), frozenset(PERSONAL.split())
ASKS_WHETHER = re.compile(
    r"(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|may|might|must|should)\b", re.IGNORECASE
)
ANSWER = re.compile(r"^\W*(?:the|my) answer(?: to (?:the|this|that|your) question)? is\b\W*", re.IGNORECASE)
NEAR = 3  # words between a number and the word beside it, at most
SHARED = 2 / 3  # of the words that a sentence shares with the question


@dataclass(frozen=True)
class Checked:
    """A sentence of the answer. `cited` and `by` count the sources from 1; `by` are those that support it, the best
    first.

    support: the share of its words that the best source has, 0 to 1.  verdict: one of the four above.  reason: why the
    source that comes nearest does not support it.
    """

    text: str
    cited: tuple[int, ...]
    by: tuple[int, ...]
    support: float
    verdict: str
    reason: str = ""

    def as_dict(self) -> dict:
        return asdict(self)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order; a citation after the full stop belongs to the sentence before it."""
    pieces, start = [], 0
    for gap in SENTENCE.finditer(text):
        before, piece = text[start : gap.start()].rstrip(), text[start : gap.end()]
        numbered = NUMBERED.search(before) and text[gap.end() : gap.end() + 1].isdigit()
        if "\n" not in gap[0] and (numbered or ABBREVIATION.search(before)):
            continue
        pieces.append(piece)
        start = gap.end()
    return [piece.strip() for piece in (*pieces, text[start:]) if piece.strip()]


def cited_in(sentence: str) -> tuple[int, ...]:
    """The numbers a sentence cites: `[1]`, `[1, 3]`."""
    return tuple(dict.fromkeys(int(n) for group in CITATION.findall(sentence) for n in re.split(r"\s*[,;]\s*", group)))


def check(answer: str, sources: Sequence[str], question: str = "") -> list[Checked]:
    """Each sentence of `answer` against the texts of `sources`. What only repeats the question says nothing."""
    split = [sentences(source) for source in sources]
    return [checked(part, split, question) for part in sentences(answer)]


def checked(part: str, sources: Sequence[list[str]], question: str) -> Checked:
    """One sentence, by each source as a whole, or else by clauses."""
    bare, cited = CITATION.sub("", part).strip(), cited_in(part)
    supports = {n: support(bare, source, question) for n, source in enumerate(sources, start=1)}
    if None in supports.values() or not parsed(bare):
        return Checked(part, cited, (), 0.0, NOTHING)
    by = good(supports) or by_clauses(bare, sources, question)
    nearest = max(supports.values(), key=lambda one: one.share, default=Support(0.0, "there is no source"))
    if not by:
        return Checked(part, cited, (), nearest.share, UNSUPPORTED, nearest.reason)
    return Checked(part, cited, by, nearest.share, ELSEWHERE if cited and not set(cited) & set(by) else SUPPORTED)


def good(supports: Mapping[int, Support | None]) -> tuple[int, ...]:
    """Those that support it, the best first."""
    return tuple(sorted((n for n, one in supports.items() if one and not one.reason), key=lambda n: -supports[n].share))


def by_clauses(sentence: str, sources: Sequence[list[str]], question: str) -> tuple[int, ...]:
    """The sources that together support a sentence, one a clause; each has to have what the sentence is about, its
    first word. None where a clause is supported by none of them."""
    clauses = CLAUSE.split(sentence)
    if len(clauses) < 2 or any(len(parsed(clause)) < 2 for clause in clauses):
        return ()
    subject = parsed(sentence)[0].root
    about = {n for n, texts in enumerate(sources, start=1) if subject in {w.root for t in texts for w in parsed(t)}}
    by: list[int] = []
    for clause in clauses:
        supports = {n: support(clause, sources[n - 1], question) for n in about}
        if None in supports.values():  # it repeats the question
            continue
        if not good(supports):
            return ()
        by += good(supports)[:1]
    return tuple(dict.fromkeys(by))


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
    """How a source, given as its sentences, supports a sentence; None for a sentence that says nothing."""
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
        return Support(share, "a number alone does not say what it counts")
    if strange := [word.text for word in stated if word.exact and word.root not in roots]:
        return Support(share, f"not in the source: {', '.join(strange[:3])}")
    top = 2 if source and source[0][-1].isalnum() else 1  # a heading has no full stop: the sentence under it opens too
    opening = {word.root for line in lines[:top] for word in line}
    shared = [word for word in stated if word not in new] or (
        asked if bare != sentence else []
    )  # "The answer is: 10 minutes"
    reasons = [objection(stated, new, shared, passage, opening) for passage in passages(source, lines)]
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


def objection(
    stated: Sequence[Word], new: Sequence[Word], shared: Sequence[Word], passage: Sequence[Word], opening: set[str]
) -> tuple[int, str]:
    """Why a passage does not support the words, "" where it does, after how much it lacks."""
    at: dict[str, list[int]] = {}
    for place, word in enumerate(passage):
        at.setdefault(word.root, []).append(place)
    if missing := [word.text for word in new if word.root not in at]:
        return 1 + len(missing), f"not in the source: {', '.join(missing[:3])}"
    if sum(word.root in at or word.root in opening for word in shared) < SHARED * len(shared):
        return 2, "the source says that of something else"
    for place, word in enumerate(stated):
        places = at.get(word.root, [])
        same = [passage[i] for i in places]
        if same and all(other.denied != word.denied for other in same):
            return 1, f"the source {'denies' if same[0].denied else 'does not deny'}: {word.text}"
        if same and all(other.compared != word.compared for other in same):
            return 1, f"the source compares the other way round: {word.text}"
        if word.single and places and all(i and passage[i - 1].root[:1].isdigit() for i in places):
            return 1, f"the source has another number of {word.text}"
        if word.root[:1].isdigit() and word in new and not beside(stated, place, passage, at, opening):
            return 1, f"the source has this number of something else: {word.text}"
        if word.agent and word.name and place and by_another(stated, place, passage, at):
            return 1, f"the source names another than {word.text}"
    return 0, ""


def beside(
    stated: Sequence[Word], place: int, passage: Sequence[Word], at: dict[str, list[int]], opening: set[str]
) -> bool:
    """Whether a number is beside its neighbours in the passage too, in one sentence; beside other numbers as close as
    it is. What the sentence is about may be named where the source opens."""

    def near(i: int, j: int, apart: int) -> bool:
        most = apart if passage[j].root[:1].isdigit() else NEAR
        return abs(i - j) <= most and passage[i].line == passage[j].line

    about = {stated[0].root} & opening if place == 1 else set()
    around = [(place + step, abs(step)) for step in (-1, 1, 2) if 0 <= place + step < len(stated)]
    neighbours = [(stated[i].root, apart) for i, apart in around if stated[i].root not in about]
    return any(
        all(any(near(i, j, apart) for j in at.get(root, ())) for root, apart in neighbours)
        for i in at[stated[place].root]
    )


def by_another(stated: Sequence[Word], place: int, passage: Sequence[Word], at: dict[str, list[int]]) -> bool:
    """Whether what was done by this name was done by another one in the passage."""
    for verb in at.get(stated[place - 1].root, ()):
        after = passage[verb + 1 :]
        if after and after[0].agent and after[0].name:
            names = [word.root for word in takewhile(lambda word: word.name, after)]
            if stated[place].root not in names:
                return True
    return False


def quoted_runs(answer: str, source: str) -> list[tuple[int, int]]:
    """Where `source` is quoted word for word in the answer, four words in a row or more: (start, end) characters."""
    word = re.compile(r"\w+")
    answer_words = [w[0].casefold() for w in word.finditer(CITATION.sub(" ", answer))]
    runs = {tuple(answer_words[i : i + RUN]) for i in range(len(answer_words) - RUN + 1)}
    source_words = list(word.finditer(source))
    spans: list[tuple[int, int]] = []
    for i in range(len(source_words) - RUN + 1):
        if tuple(w[0].casefold() for w in source_words[i : i + RUN]) in runs:
            start, end = source_words[i].start(), source_words[i + RUN - 1].end()
            if spans and start <= spans[-1][1]:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
    return spans
