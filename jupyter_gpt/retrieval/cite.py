"""Citation check: is each sentence of an answer supported by the sources it was given?

A sentence is supported where one source says it (`support.py`), or where each of its clauses is said by one of them.
The check compares words and favours precision: a paraphrase in quite other words is marked as not supported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from jupyter_gpt.retrieval.support import Support, parsed, support

SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*(?:\s*\[\d+\])*\s+(?=[\"'“‘(\[]?[A-Z0-9À-ÞА-Я])|\n+|(?<=[。！？])")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|vs|e\.g|i\.e|Fig|[A-Z])\.$")
NUMBERED = re.compile(r"\bNo\.$")  # before a digit; elsewhere it is an answer
CITATION = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
CLAUSE = re.compile(r"[,;:]?\s+(?:and|but|while|whereas)\s+|;\s+")
RUN = 4  # words in a row that count as a quotation
SUPPORTED, ELSEWHERE, UNSUPPORTED, NOTHING = "supported", "supported by another source", "not supported", "says nothing"


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


def good(found: Mapping[int, Support | None]) -> tuple[int, ...]:
    """Those that support it, the best first."""
    return tuple(sorted((n for n, one in found.items() if one and not one.reason), key=lambda n: -found[n].share))


def by_clauses(sentence: str, sources: Sequence[list[str]], question: str) -> tuple[int, ...]:
    """The sources that together support a sentence, one a clause; each has to have what the sentence is about, its
    first word. None where a clause is said by none of them."""
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


def quoted_runs(answer: str, source: str) -> list[tuple[int, int]]:
    """Where in `source` it stands word for word in the answer, four words in a row or more: (start, end) characters."""
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
