"""Does what the answer says stand in its sources? Each sentence is held against each source it was given.

A sentence is supported by a source when its words are there and its meaning is: the mean of

    overlap      the share of its content words that the source has, and
    similarity   the cosine of its embedding to that of the source's nearest passage of two sentences

reaches THRESHOLD, and every number of it stands in the source. That is a check of words, not of truth: a sentence that
turns its source around with a "not" passes, and one that says it in quite other words fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from jupyter_gpt.retrieval.keyword import content_words

THRESHOLD = 0.55
SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*(?:\s*\[\d+\])*\s+(?=[\"'“‘(\[]?[A-Z0-9À-ÞА-Я])|\n+|(?<=[。！？])")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|vs|e\.g|i\.e|Fig|[A-Z])\.$")
NUMBERED = re.compile(r"\bNo\.$")  # before a digit; elsewhere it is an answer
CITATION = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
RUN = 4  # words in a row that count as a quotation
SUPPORTED, ELSEWHERE, UNSUPPORTED, NOTHING = "supported", "supported by another source", "not supported", "says nothing"


@dataclass(frozen=True)
class Checked:
    """A sentence of the answer. `cited` and `by` count the sources from 1; `by` are those that support it, the best first.

    support: of the best source, 0 to 1.  verdict: one of the four above.
    """

    text: str
    cited: tuple[int, ...]
    by: tuple[int, ...]
    support: float
    verdict: str

    def as_dict(self) -> dict:
        return asdict(self)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order; a citation after the full stop belongs to the sentence before it."""
    found, start = [], 0
    for gap in SENTENCE.finditer(text):
        before, piece = text[start : gap.start()].rstrip(), text[start : gap.end()]
        numbered = NUMBERED.search(before) and text[gap.end() : gap.end() + 1].isdigit()
        if "\n" not in gap[0] and (numbered or ABBREVIATION.search(before)):
            continue
        found.append(piece)
        start = gap.end()
    return [piece.strip() for piece in (*found, text[start:]) if piece.strip()]


def cited_in(sentence: str) -> tuple[int, ...]:
    """The numbers a sentence cites: `[1]`, `[1, 3]`."""
    return tuple(dict.fromkeys(int(n) for group in CITATION.findall(sentence) for n in re.split(r"\s*[,;]\s*", group)))


def check(
    answer: str, sources: Sequence[str], vectors: Callable[[Sequence[str]], object], question: str = ""
) -> list[Checked]:
    """Each sentence of `answer` against the texts of `sources`. `vectors(texts)` gives unit vectors `(n, dimensions)`.

    Words of the question count neither for nor against: an answer repeats it.
    """
    parts = sentences(answer)
    bare = [CITATION.sub("", part).strip() for part in parts]
    passages = [(n, passage) for n, source in enumerate(sources) for passage in windows(source)]
    similar = similarity(bare, [text for _, text in passages], vectors) if parts and passages else None
    asked = set(content_words(question))
    found = []
    for row, (part, text) in enumerate(zip(parts, bare, strict=True)):
        said = [word for word in content_words(text) if word.isalnum()]
        new = [word for word in said if word not in asked] or said
        scores = {}
        for n, source in enumerate(sources):
            near = max((float(similar[row, i]) for i, (of, _) in enumerate(passages) if of == n), default=0.0)
            scores[n + 1] = support(new, text, source, near)
        found.append(judged(part, cited_in(part), scores, bool(said)))
    return found


def support(said: Sequence[str], text: str, source: str, similar: float) -> float:
    """How well one source supports a sentence, 0 to 1; 0 when a number of it is not there."""
    there = set(content_words(source))
    numbers = set(NUMBER.findall(source))
    if not said or any(number not in numbers for number in NUMBER.findall(text)):
        return 0.0
    overlap = sum(word in there for word in said) / len(said)
    return (overlap + min(1.0, max(0.0, similar))) / 2


def judged(text: str, cited: tuple[int, ...], scores: dict[int, float], says: bool) -> Checked:
    """The verdict on one sentence, from its support by each source."""
    by = tuple(sorted((n for n, score in scores.items() if score >= THRESHOLD), key=lambda n: -scores[n]))
    best = max(scores.values(), default=0.0)
    if not says:
        verdict = NOTHING
    elif not by:
        verdict = UNSUPPORTED
    elif cited and not set(cited) & set(by):
        verdict = ELSEWHERE
    else:
        verdict = SUPPORTED
    return Checked(text, cited, by, best, verdict)


def windows(text: str) -> list[str]:
    """Each sentence with the one after it: what is said in two is found too."""
    found = sentences(text)
    return [" ".join(found[i : i + 2]) for i in range(max(1, len(found) - 1))] + (found if len(found) > 1 else [])


def similarity(texts: Sequence[str], passages: Sequence[str], vectors: Callable):
    """Cosines `(texts, passages)`."""
    both = vectors([*texts, *passages])
    return both[: len(texts)] @ both[len(texts) :].T


def quoted_runs(answer: str, source: str) -> list[tuple[int, int]]:
    """Where in `source` it stands word for word in the answer, four words in a row or more: (start, end) characters."""
    word = re.compile(r"\w+")
    said = [w[0].casefold() for w in word.finditer(CITATION.sub(" ", answer))]
    runs = {tuple(said[i : i + RUN]) for i in range(len(said) - RUN + 1)}
    found = list(word.finditer(source))
    lit: list[tuple[int, int]] = []
    for i in range(len(found) - RUN + 1):
        if tuple(w[0].casefold() for w in found[i : i + RUN]) in runs:
            start, end = found[i].start(), found[i + RUN - 1].end()
            if lit and start <= lit[-1][1]:
                lit[-1] = (lit[-1][0], end)
            else:
                lit.append((start, end))
    return lit
