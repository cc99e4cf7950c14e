"""Finding the answer in what a model said, and telling whether two answers are the same."""

from __future__ import annotations

import re

SAID = re.compile(r"(?:\banswer\s*(?:is|:|=)|\\boxed\{|####)\s*:?\s*(?P<answer>[^\n]*)", re.IGNORECASE)
LEAD = re.compile(
    r"^(?:(?:so|thus|therefore|hence|final|the|correct|answer|is|would be)\b[\s,:]*|[:=\s]+)+", re.IGNORECASE
)
NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
LONGEST = 200  # characters: more than that is no answer but another essay
WRAPPING = "*_`\"'“”‘’$ \t"


def answer_in(text: str) -> str | None:
    """What the last "answer is …", "Answer: …", "#### …" or "\\boxed{…}" of a text names; None when there is none."""
    found = [cleaned(match["answer"], boxed="boxed" in match[0]) for match in SAID.finditer(text)]
    return next((answer for answer in reversed(found) if answer), None)


def cleaned(text: str, boxed: bool = False) -> str:
    """The first line that says something, without "the answer is", quotes, stars and the full stop at its end."""
    line = next((line for line in text.strip().splitlines() if line.strip()), "")
    if boxed:
        line = line.partition("}")[0]
    line = line.strip(WRAPPING)
    short = LEAD.sub("", line)
    return (short or line).strip(WRAPPING).rstrip(".!。").strip(WRAPPING)


def fits(answer: str | None) -> bool:
    """Whether this can be an answer: something, and no essay."""
    return bool(answer) and len(answer) <= LONGEST


def key(answer: str) -> str:
    """What two answers have in common when they are the same: of an answer with one number in it, that number
    (`$1,200.00` is `1200`); of any other its words without case, articles, punctuation and spaces around them.
    """
    numbers = NUMBER.findall(answer)
    if len(numbers) == 1:
        return plain_number(numbers[0])
    words = re.sub(r"[^\w\s/+*().=-]", " ", answer.casefold()).split()
    return " ".join(word.strip(".") for word in words if word not in ("a", "an", "the"))


def plain_number(text: str) -> str:
    """A number as it is usually written: no thousands separators, no zeros after the point."""
    digits = text.replace(",", "").replace("−", "-")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
