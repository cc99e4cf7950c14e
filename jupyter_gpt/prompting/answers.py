"""Extracting the answer from a completion: one function for every technique and for `gpt.evaluate`.

What counts as the answer depends on its form, as in the papers and in lm-evaluation-harness:

number   `#### 40` and "The answer is 40" (GSM8K), `\\boxed{40}` (MATH); else the last number
choice   the letter that is stated; else the one at the beginning, the last one, or the one whose text is (MMLU)
yes/no   the word that is stated; else the one at the beginning or the last one (StrategyQA), or what the last
         sentence in the question's own words affirms or denies ("The coin is still heads up.")
text     what is stated, else the first sentence; compared without case, punctuation and articles (SQuAD)
sentence the whole reply, or what it states after "####" or in a box

A completion that was cut off has an answer only if it states one or begins with it: its last number is just the last
that there was room for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jupyter_gpt.retrieval.cite import sentences
from jupyter_gpt.retrieval.keyword import content_words, root
from jupyter_gpt.retrieval.numbers import DIGITS, WORDS, in_digits, in_words, number

STATED = re.compile(
    r"\#{4,}[ \t]*:?[ \t]*(?P<marked>[^\n#]*)|\\boxed\{(?P<boxed>[^{}\n]*)"
    r"|\banswers?(?: (?:to|of|for)\b[^.:?\n]{0,80}?)?\s*(?:\b(?:is|was|(?:would|should|must|will) be)\b\s*:?|[:=])\s*"
    r"(?P<after>[^\n]*)"
    r"|(?P<before>[^.?\n]*[^.?\n\s])\s+is (?:the (?:(?:correct|right|final|best) "
    r")*(?:answer|option|choice)|correct)\b(?!\?)",
    re.IGNORECASE,
)
BOXED = re.compile(r"\\boxed\{([^{}\n]*)\}?")
POINTING = re.compile(r"\b(?:this|that|it|which)\W*$", re.IGNORECASE)
LEAD = re.compile(
    r"^(?:(?:so|thus|therefore|hence|final|the|correct|answer|is|would be)\b[\s,:]*|[:=\s]+)+", re.IGNORECASE
)
LONGEST = 200  # characters of an answer
BARE = 30  # characters of an answer before "is the answer"
SHORT = 60  # characters of a completion that is nothing but its answer
WRAPPING = "*_`\"'“”‘’$ \t"
STEP = re.compile(r"(?mi)^[ \t]*step \d{1,2}[.):]?")
ITEM = re.compile(r"(?m)^[ \t]*(\d{1,2})[.)](?=[ \t])")
EQUALS = re.compile(r"=|\bequals\b|\bequal to\b")
CLAUSE = re.compile(r",?\s+\b(?:so|therefore|thus|hence|which (?:means|leaves|gives))\b", re.IGNORECASE)
OPTION = re.compile(r"(?m)^[ \t]*\(?([A-J])[).:][ \t]+(\S.*)$|\(([A-J])\)[ \t]*([^()\n]+)")
LETTER = re.compile(r"\(([A-Ja-j])\)|(?<![\w'’])([A-J])(?=[).:,*\"”']|\s*$)")
NO_ONE = r"(?! (?:one|matter)\b)"
YES_NO = re.compile(rf"(?i)\byes\b|\bno\b(?=[.,;:!*\"”'’)]|\s*$)|^no\b{NO_ONE}")
DENIES = re.compile(r"\b(?:not|never|cannot|neither)\b|n[’']t\b", re.IGNORECASE)


@dataclass(frozen=True)
class Form:
    """The form of an answer. kind: "number", "choice", "yes/no", "text", "sentence", or "" if unknown.

    options: of a choice, each letter or word with its text in the question.  question: the question itself.
    """

    kind: str = ""
    options: tuple[tuple[str, str], ...] = ()
    question: str = ""

    @property
    def lettered(self) -> bool:
        return all(len(option) == 1 for option, _ in self.options)


ANY = Form()


def form_of(answer: str, question: str = "", answers: Sequence[str] = ()) -> Form:
    """The form of an answer key: `answer` is that of this question, `answers` those of all of them."""
    key = answer_key(answer)
    if key.casefold() in ("yes", "no"):
        return Form("yes/no", question=question)
    letters = [m and (m[1] or m[2]).upper() for m in map(LETTER.fullmatch, map(answer_key, [answer, *answers]))]
    if letters[0] and (offered := options_in(question)):
        return Form("choice", tuple(offered.items()), question)
    if number(re.sub(r"\s*(?:%|°?[A-Za-z²³]*)$", "", key)) or number(key):
        return Form("number", question=question)
    few = sorted(set(letters)) if all(letters) else sorted({answer_key(one).casefold() for one in answers})
    if 2 <= len(few) <= 5 and len(answers) >= 4 * len(few) and all(len(one.split()) <= 2 for one in few):
        return Form("choice", tuple((one, one) for one in few), question)
    length, ended = len(key.split()), answer.rstrip().endswith((".", "!", "?"))
    return Form("sentence" if length >= (4 if ended else 8) else "text", question=question)


def answer_key(answer: str) -> str:
    """The answer in an answer key: GSM8K's has the solution first, and then `#### 72`."""
    return answer.rpartition("####")[2].strip().strip(".")


def options_in(question: str) -> dict[str, str]:
    """The options that a question offers, letter to text; none unless they go from A on."""
    options = {m[1] or m[3]: (m[2] or m[4]).strip(" .\r") for m in OPTION.finditer(question)}
    return options if len(options) > 1 and "".join(options) == "ABCDEFGHIJ"[: len(options)] else {}


def extract_answer(text: str, form: Form = ANY, *, cut: bool = False, alone: bool = False) -> str | None:
    """The answer of a completion; None if it has none.

    cut: the completion was cut off.  alone: nothing but the answer was asked for, so the first sentence is one.
    """
    if form.kind == "sentence":
        marked = [m["marked"] or m["boxed"] for m in STATED.finditer(text) if m["marked"] or m["boxed"]]
        return (marked[-1] if marked else without_markup(text)).strip() or None
    stated = stated_answer(text, form, cut)
    if stated is not None:
        return stated
    text = unlisted(without_markup(text))
    if form.kind in RULES:
        rule = RULES[form.kind]
        text = without_options(text, form)
        found = rule.front(first_sentence(text, cut), form)
        return found if found is not None or cut else rule.anywhere(text, form)
    if form.kind == "text" or alone:
        return short(first_sentence(text, cut), LONGEST)
    return short(text, SHORT) if not cut and "\n" not in text.strip() else None


def stated_answer(text: str, form: Form = ANY, cut: bool = False) -> str | None:
    """What the last "answer is …", "Answer: …", "#### …" or "\\boxed{…}" of a text states; None if there is none.

    A completion that was cut off inside the statement, or after several that differ, states none.
    """
    text, answers = without_markup(text), []
    for match in STATED.finditer(text):
        phrase = next(phrase for phrase in match.groups() if phrase is not None)
        if boxed := BOXED.search(phrase):  # "the answer is \\boxed{42}"
            phrase = boxed[1]
        before = match["before"]
        first, *more = sentences(phrase) or [""]
        torn = cut and match.end() == len(text) and not (more or before or re.search(r"\D[.!?]$", first))
        if torn or re.match(r"not\b", phrase, re.IGNORECASE) or phrase.endswith("answer"):  # "your answer is correct"
            continue
        if form.kind in RULES:
            rule = RULES[form.kind]
            source = text[: match.start()] if POINTING.match(phrase.strip()) else phrase
            value = rule.anywhere(source, form) if before else rule.stated(first, form)
        elif before:
            value = None if POINTING.search(phrase) else short(phrase, BARE)
        else:
            value = short(first, LONGEST)
        if value:
            answers.append(value)
    if not answers or (cut and len({normalize(value, form) for value in answers}) > 1):
        return None
    return answers[-1]


def normalize(answer: str, form: Form = ANY) -> str:
    """What two equal answers have in common: a number (`$1,200.00` is `1200`, `six` is `6`), an option, or else the
    words without case, articles, punctuation and spaces around them."""
    if form.kind in ("choice", "yes/no"):
        return extract_answer(answer, form, alone=True) or answer.casefold()
    bare = answer.strip(WRAPPING).rstrip(".").casefold()
    if form.kind not in ("text", "sentence"):
        numbers = in_digits(answer)
        if len(numbers) == 1 or number(bare):
            return number(bare) or numbers[0]
    words = re.sub(r"[^\w\s/+*().=-]", " ", bare).split()
    return " ".join(word.strip(".") for word in words if word not in ("a", "an", "the") or len(words) == 1)


def is_correct(answer: str, expected: str, form: Form) -> bool:
    """Whether an answer is the expected one. A text is if it contains the expected words in order, with no "not" before
    them: models answer in sentences."""
    expected = answer_key(expected)
    if form.kind != "text":
        return normalize(answer, form) == normalize(expected, form)
    words, wanted = (re.findall(r"\w+", normalize(text, form)) for text in (answer, expected))
    places = [i for i in range(len(words) - len(wanted) + 1) if wanted and words[i : i + len(wanted)] == wanted]
    return any(not {"not", "never", "t"} & set(words[max(0, i - 3) : i]) for i in places)


def short(text: str, most: int) -> str | None:
    """A text as an answer; None if it is empty or longer than `most` characters."""
    return (clean(text) or None) if len(text.strip()) <= most else None


def clean(text: str) -> str:
    """The first line with text, without "the answer is", quotes, stars and the full stop at its end."""
    line = next((line for line in text.strip().splitlines() if line.strip()), "").strip(WRAPPING)
    rest = LEAD.sub("", line)
    return (rest or line).strip(WRAPPING).rstrip(".!。").strip(WRAPPING)


def without_markup(text: str) -> str:
    """Without bold type and the LaTeX around answers."""
    text = re.sub(r"\\d?frac\{(\d+)\}\{(\d+)\}", r"\1/\2", text)
    return re.sub(r"\\(?:text|mathrm|textbf)\{([^{}]*)\}", r"\1", text).replace("\\$", "$").replace("**", "")


def unlisted(text: str) -> str:
    """Remove the numbering of list items, which is not an answer."""
    text = STEP.sub("", text)
    return ITEM.sub("", text) if "1" in ITEM.findall(text) else text


def without_options(text: str, form: Form) -> str:
    """Remove lines that begin with different option letters: a list of the options is not an answer."""
    lines = text.splitlines()
    marks = [first(letters_in(line.strip()[:3], form)) for line in lines]
    several = len(set(marks) - {None}) > 1
    return "\n".join(line for line, mark in zip(lines, marks, strict=True) if not (several and mark))


def first_sentence(text: str, cut: bool) -> str:
    """The first sentence with text; "" if that is the one that was cut off."""
    line, more, _ = text.strip().partition("\n")
    found = sentences(line) or [""]
    return "" if cut and not more and len(found) == 1 and not found[0].endswith((".", "!", "?")) else found[0]


def first(items: Sequence[str]) -> str | None:
    return items[0] if items else None


def last(items: Sequence[str]) -> str | None:
    return items[-1] if items else None


# numbers: those in words count if there are none in digits


def results_in(sentence: str) -> list[str]:
    """The numbers that a sentence comes to: the one after its last "=", else all it has."""
    *_, right = EQUALS.split(sentence)
    return in_digits(right)[:1] if right != sentence and in_digits(right) else in_digits(sentence)


def number_in_front(sentence: str, form: Form) -> str | None:
    """A line that is a number and perhaps a few words on what it counts."""
    pattern = rf"(?P<number>{DIGITS.pattern}|{WORDS.pattern})%?(?:\s+[^\W\d]+){{0,3}}[.!]?"
    match = re.fullmatch(pattern, sentence.strip(WRAPPING), re.IGNORECASE)
    return number(match["number"].strip()) if match else None


def last_number(text: str, form: Form) -> str | None:
    """The number that the last sentence with one comes to. Numbers of the question are no result if the sentence has
    another."""
    given = in_digits(form.question) + in_words(form.question)
    parts = [part for line in sentences(text) for part in CLAUSE.split(line)]
    found = next((numbers for part in reversed(parts) if (numbers := results_in(part))), [])
    found = [one for one in found if one not in given] or found
    return last(found or [one for one in in_words(text) if one not in ("1", *given)])  # "one" is a word


# choices


def letters_in(text: str, form: Form) -> list[str]:
    """The letters that stand for options in a text, in order."""
    found = [(match[1] or match[2]).upper() for match in LETTER.finditer(text)] if form.lettered else []
    return [letter for letter in found if letter in dict(form.options)]


def choices_in(text: str, form: Form) -> list[str]:
    """The options in a text, in order: by letter, else by their words, but not those that are part of another one's."""
    if letters := letters_in(text, form):
        return letters
    text, places = text.casefold(), []
    for option, words in form.options:
        matches = re.finditer(rf"(?<!\w){re.escape(words.casefold())}(?!\w)", text)
        places += [(match.start(), -match.end(), option) for match in matches]
    options, end = [], 0
    for start, stop, option in sorted(places):
        if start >= end:
            options.append(option)
            end = -stop
    return options


def choice_in_front(sentence: str, form: Form) -> str | None:
    """The letter that a text begins with, or the option that is the whole of it."""
    text = sentence.strip(WRAPPING)
    if match := LETTER.match(text):
        return first(letters_in(match[0] + text[match.end() :][:1], form))
    return next((option for option, words in form.options if text.rstrip(".").casefold() == words.casefold()), None)


# yes and no


def yes_or_no(sentence: str, form: Form) -> str | None:
    """The word in a sentence, unless it has both; else what the sentence affirms or denies."""
    found = {match[0].casefold() for match in YES_NO.finditer(sentence.lstrip(WRAPPING))}
    return found.pop() if len(found) == 1 else None if found else affirmed(sentence, form)


def yes_no_in_front(sentence: str, form: Form) -> str | None:
    match = re.match(rf"(?i)(?:yes|no)\b{NO_ONE}", sentence.lstrip(WRAPPING))
    return match[0].casefold() if match else None


def affirmed(sentence: str, form: Form) -> str | None:
    """Whether a sentence with all words of the question affirms it. The state of a coin has two words for it."""
    asked = next((one for one in reversed(sentences(form.question)) if one.endswith("?")), "")
    if not asked or sentence.rstrip(WRAPPING).endswith("?"):
        return None
    denied = bool(DENIES.search(sentence))
    if "heads up" in asked.casefold():
        states = set(re.findall(r"\b(heads|tails)[ -]up\b", sentence.casefold()))
        return None if len(states) != 1 else "no" if denied != (states == {"tails"}) else "yes"
    words = {root(word) for word in content_words(sentence)}
    whole = all(root(word) in words for word in content_words(asked) if word != "still")
    return None if not whole else "no" if denied else "yes"


@dataclass(frozen=True)
class Rule:
    """How answers of one kind are read: after "the answer is", from a first sentence, from a whole text."""

    stated: Callable[[str, Form], str | None]
    front: Callable[[str, Form], str | None]
    anywhere: Callable[[str, Form], str | None]


RULES = {
    "number": Rule(lambda phrase, form: first(results_in(phrase) or in_words(phrase)), number_in_front, last_number),
    "choice": Rule(
        lambda phrase, form: first(choices_in(phrase, form)),
        choice_in_front,
        lambda text, form: last(choices_in(text, form)),
    ),
    "yes/no": Rule(
        yes_or_no,
        yes_no_in_front,
        lambda text, form: next((word for one in reversed(sentences(text)) if (word := yes_or_no(one, form))), None),
    ),
}
