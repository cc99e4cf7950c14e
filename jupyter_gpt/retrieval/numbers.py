"""Numbers in a text: in digits, as `$1,234.50`, `-3`, `42%`, `2 1/2` or `6e-5`, and in words below a million."""

from __future__ import annotations

import re
from fractions import Fraction

DIGITS = re.compile(
    r"(?<![\w.])(?P<sign>(?:(?<![\w)])[-−])?)\s?[$€£]?(?P<whole>\d+ (?=\d+/))?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|(?:\d+(?:\.\d+)?|\.\d+)[eE][-+]?\d{1,3}(?!\w)"
    r"|\d+(?:\.\d+)?(?:/\d+)?|\.\d+)"
)
UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORTH = {word: n for n, word in enumerate(UNITS + TEENS)} | {word: 10 * n for n, word in enumerate(TENS, start=2)}
BELOW_100 = rf"(?:(?:{'|'.join(TENS)})(?:[\s-]+(?:{'|'.join(UNITS[1:])}))?|{'|'.join(TEENS + UNITS)})"
BELOW_1000 = rf"(?:{BELOW_100}\s+hundred(?:\s+(?:and\s+)?{BELOW_100})?|{BELOW_100})"
WORDS = re.compile(rf"\b{BELOW_1000}(?:\s+thousand(?:\s+(?:and\s+)?{BELOW_1000})?)?\b", re.IGNORECASE)


def in_digits(text: str) -> list[str]:
    """The numbers of a text that are written in digits, each as `number` gives it."""
    return [value(match) for match in DIGITS.finditer(text)]


def in_words(text: str) -> list[str]:
    """The numbers of a text that are written in words, each in digits."""
    return [value_of_words(match[0]) for match in WORDS.finditer(text)]


def number(text: str) -> str | None:
    """A text that is a number and nothing else, as it is usually written: no currency, no thousands separators, no
    zeros after the point, and 0.5 for 1/2; None for any other text."""
    if match := DIGITS.fullmatch(text):
        return value(match)
    return value_of_words(text) if WORDS.fullmatch(text) else None


def value(match: re.Match) -> str:
    top, _, bottom = match["digits"].replace(",", "").partition("/")
    if bottom and not int(bottom):
        return match[0].strip()
    number_ = Fraction(top) / int(bottom or 1) + int(match["whole"] or 0)
    number_ = -number_ if match["sign"] else number_
    if 10**12 % number_.denominator:
        return f"{number_.numerator}/{number_.denominator}"
    return str(number_.numerator) if number_.denominator == 1 else f"{float(number_):.12f}".rstrip("0")


def value_of_words(words: str) -> str:
    """`two hundred and six` as `206`."""
    total = part = 0
    for word in re.findall(r"[a-z]+", words.casefold()):
        if word == "thousand":
            total, part = 1000 * part, 0
        else:
            part = 100 * part if word == "hundred" else part + WORTH.get(word, 0)
    return str(total + part)
