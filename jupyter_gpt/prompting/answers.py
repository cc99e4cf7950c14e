"""Reading the answer that a reply gives: one function for every technique and for `gpt.evaluate`.

What counts as the answer follows from its form, as in the papers and in lm-evaluation-harness:

number     `#### 40` and "The answer is 40" (GSM8K), `\\boxed{40}` (MATH); else the last number
choice     the letter that is named; else the one at the beginning, the last one mentioned, or the one whose text is
(MMLU) yes/no     the word that is named; else the one at the beginning or the last one (StrategyQA), or what the last
sentence
           in the question's own words affirms or denies ("The coin is still heads up.")
text       what is named, else the first sentence; compared without case, punctuation and articles (SQuAD)

A reply that was cut off at its limit has an answer where it names one or begins with it, and nowhere else: its last
number is the last that there was room for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jupyter_gpt.retrieval.cite import sentences
from jupyter_gpt.retrieval.keyword import content_words, root
from jupyter_gpt.retrieval.numbers import DIGITS, WORDS, in_digits, in_words, number

NAMED = re.compile(
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
LONGEST = 200  # characters: more than that is no answer but another essay
BARE = 30  # characters of an answer before "is the answer"
SHORT = 60  # characters of a reply that says nothing but its answer
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
    """What the answer to a question is. kind: "number", "choice", "yes/no", "text", or "" where nobody has said.

    options: of a choice, each letter or word with the text that the question writes beside it.  question: its own
    words.
    """

    kind: str = ""
    options: tuple[tuple[str, str], ...] = ()
    question: str = ""

    @property
    def lettered(self) -> bool:
        return all(len(option) == 1 for option, _ in self.options)


ANY = Form()


def form_of(answer: str, question: str = "", answers: Sequence[str] = ()) -> Form:
    """The form that the answer key has: `answer` is that of this question, `answers` are those of all of them."""
    said = keyed(answer)
    if said.casefold() in ("yes", "no"):
        return Form("yes/no", question=question)
    letters = [
        match and (match[1] or match[2]).upper() for match in map(LETTER.fullmatch, map(keyed, [answer, *answers]))
    ]
    if letters[0] and (offered := options_in(question)):
        return Form("choice", tuple(offered.items()), question)
    if number(re.sub(r"\s*(?:%|°?[A-Za-z²³]*)$", "", said)) or number(said):
        return Form("number", question=question)
    few = sorted(set(letters)) if all(letters) else sorted({keyed(one).casefold() for one in answers})
    if 2 <= len(few) <= 5 and len(answers) >= 4 * len(few) and all(len(one.split()) <= 2 for one in few):
        return Form("choice", tuple((one, one) for one in few), question)
    return Form("text", question=question)


def keyed(answer: str) -> str:
    """An answer as the key has it: GSM8K's is the solution, and then `#### 72`."""
    return answer.rpartition("####")[2].strip().strip(".")


def options_in(question: str) -> dict[str, str]:
    """The options that a question offers, letter to text; none where they do not go from A on."""
    found = {m[1] or m[3]: (m[2] or m[4]).strip(" .\r") for m in OPTION.finditer(question)}
    return found if len(found) > 1 and "".join(found) == "ABCDEFGHIJ"[: len(found)] else {}


def read(text: str, form: Form = ANY, *, cut: bool = False, alone: bool = False) -> str | None:
    """The answer that a reply gives; None where none can be read.

    cut: the reply was broken off at its limit.  alone: nothing but the answer was asked for, so that the first sentence
    is one, whatever it says.
    """
    found = named(text, form, cut)
    if found is not None:
        return found
    text = unlisted(plain(text))
    if form.kind in RULES:
        rule = RULES[form.kind]
        text = without_options(text, form)
        found = rule.front(first_sentence(text, cut), form)
        return found if found is not None or cut else rule.anywhere(text, form)
    if form.kind == "text" or alone:
        return short(first_sentence(text, cut), LONGEST)
    return short(text, SHORT) if not cut and "\n" not in text.strip() else None


def named(text: str, form: Form = ANY, cut: bool = False) -> str | None:
    """What the last "answer is …", "Answer: …", "#### …" or "\\boxed{…}" of a text names; None when there is none.

    A reply that was cut off in the middle of the name, or while it went through several, has named none.
    """
    text, found = plain(text), []
    for match in NAMED.finditer(text):
        said = next(said for said in match.groups() if said is not None)
        if boxed := BOXED.search(said):  # "the answer is \\boxed{42}"
            said = boxed[1]
        first, *more = sentences(said) or [""]
        torn = cut and match.end() == len(text) and not (more or match["before"] or re.search(r"\D[.!?]$", first))
        if torn or re.match(r"not\b", said, re.IGNORECASE) or said.endswith("answer"):  # "your answer is correct"
            continue
        if form.kind in RULES:
            rule = RULES[form.kind]
            there = text[: match.start()] if POINTING.match(said.strip()) else said
            value = rule.anywhere(there, form) if match["before"] else rule.named(first, form)
        else:
            value = (
                short(first, LONGEST) if not match["before"] else None if POINTING.search(said) else short(said, BARE)
            )
        if value:
            found.append(value)
    if not found or (cut and len({key(value, form) for value in found}) > 1):
        return None
    return found[-1]


def short(text: str, most: int) -> str | None:
    """A text as an answer; None where it is empty or an essay."""
    return (cleaned(text) or None) if len(text.strip()) <= most else None


def cleaned(text: str) -> str:
    """The first line that says something, without "the answer is", quotes, stars and the full stop at its end."""
    line = next((line for line in text.strip().splitlines() if line.strip()), "").strip(WRAPPING)
    rest = LEAD.sub("", line)
    return (rest or line).strip(WRAPPING).rstrip(".!。").strip(WRAPPING)


def plain(text: str) -> str:
    """Without bold type and the LaTeX that stands around answers."""
    text = re.sub(r"\\d?frac\{(\d+)\}\{(\d+)\}", r"\1/\2", text)
    return re.sub(r"\\(?:text|mathrm|textbf)\{([^{}]*)\}", r"\1", text).replace("\\$", "$").replace("**", "")


def unlisted(text: str) -> str:
    """Without the numbers of a list's lines, which are no answers."""
    text = STEP.sub("", text)
    return ITEM.sub("", text) if "1" in ITEM.findall(text) else text


def first_sentence(text: str, cut: bool) -> str:
    """The first sentence that says something; "" where that is the one that was cut off."""
    line, more, _ = text.strip().partition("\n")
    found = sentences(line) or [""]
    return "" if cut and not more and len(found) == 1 and not found[0].endswith((".", "!", "?")) else found[0]


def key(answer: str, form: Form = ANY) -> str:
    """What two answers have in common when they are the same: a number (`$1,200.00` is `1200`, `six` is `6`), an
    option,
    or else the words without case, articles, punctuation and spaces around them."""
    if form.kind in ("choice", "yes/no"):
        return read(answer, form, alone=True) or answer.casefold()
    bare = answer.strip(WRAPPING).rstrip(".").casefold()
    if form.kind != "text":
        found = in_digits(answer)
        if len(found) == 1 or number(bare):
            return number(bare) or found[0]
    words = re.sub(r"[^\w\s/+*().=-]", " ", bare).split()
    return " ".join(word.strip(".") for word in words if word not in ("a", "an", "the"))


def same(answer: str, expected: str, form: Form) -> bool:
    """Whether an answer is the expected one. A text is where it has the words of the expected one side by side, with no
    "not" before them: replies answer in sentences."""
    expected = keyed(expected)
    if form.kind != "text":
        return key(answer, form) == key(expected, form)
    said, wanted = (re.findall(r"\w+", key(text, form)) for text in (answer, expected))
    places = [i for i in range(len(said) - len(wanted) + 1) if wanted and said[i : i + len(wanted)] == wanted]
    return any(not {"not", "never", "t"} & set(said[max(0, i - 3) : i]) for i in places)


# numbers: where there are none in digits, those in words


def results_in(sentence: str) -> list[str]:
    """The numbers that a sentence comes to: the one after its last "=", else all it has."""
    *_, right = EQUALS.split(sentence)
    return in_digits(right)[:1] if right != sentence and in_digits(right) else in_digits(sentence)


def number_named(said: str, form: Form) -> str | None:
    return next(iter(results_in(said) or in_words(said)), None)


def number_in_front(first: str, form: Form) -> str | None:
    """A line that is a number and perhaps a few words on what it counts."""
    wanted = rf"(?P<number>{DIGITS.pattern}|{WORDS.pattern})%?(?:\s+[^\W\d]+){{0,3}}[.!]?"
    match = re.fullmatch(wanted, first.strip(WRAPPING), re.IGNORECASE)
    return number(match["number"].strip()) if match else None


def last_number(text: str, form: Form) -> str | None:
    """The number that the last sentence with one comes to. Those of the question are its conditions, and no result
    where
    the sentence has another."""
    asked = in_digits(form.question) + in_words(form.question)
    parts = [part for line in sentences(text) for part in CLAUSE.split(line)]
    found = next((found for part in reversed(parts) if (found := results_in(part))), [])
    found = [one for one in found if one not in asked] or found
    return next(reversed(found or [one for one in in_words(text) if one not in ("1", *asked)]), None)  # "one" is a word


# choices


def letters_in(text: str, form: Form) -> list[str]:
    """The letters that stand for options in a text, in order."""
    found = [(match[1] or match[2]).upper() for match in LETTER.finditer(text)] if form.lettered else []
    return [letter for letter in found if letter in dict(form.options)]


def options_said(text: str, form: Form) -> list[str]:
    """The options whose words stand in a text, in order; not those that are part of another one's."""
    text, places = text.casefold(), []
    for option, words in form.options:
        found = re.finditer(rf"(?<!\w){re.escape(words.casefold())}(?!\w)", text)
        places += [(match.start(), -match.end(), option) for match in found]
    kept, end = [], 0
    for start, stop, option in sorted(places):
        if start >= end:
            kept.append(option)
            end = -stop
    return kept


def choice_named(said: str, form: Form) -> str | None:
    return next(iter(letters_in(said, form) or options_said(said, form)), None)


def choice_in_front(first: str, form: Form) -> str | None:
    """The letter that a text begins with, or the option that is the whole of it."""
    text = first.strip(WRAPPING)
    if match := LETTER.match(text):
        return next(iter(letters_in(match[0] + text[match.end() :][:1], form)), None)
    return next((option for option, words in form.options if text.rstrip(".").casefold() == words.casefold()), None)


def last_choice(text: str, form: Form) -> str | None:
    return next(reversed(letters_in(text, form) or options_said(text, form)), None)


def without_options(text: str, form: Form) -> str:
    """Without the lines that begin with a letter, where they go through several: a list of the options is no answer."""
    lines = text.splitlines()
    marks = [next(iter(letters_in(line.strip()[:3], form)), "") for line in lines]
    several = len(set(marks) - {""}) > 1
    return "\n".join(line for line, mark in zip(lines, marks, strict=True) if not (several and mark))


# yes and no


def yes_no_named(said: str, form: Form) -> str | None:
    """The word in a sentence, where it has not both; else what the sentence affirms or denies."""
    found = {match[0].casefold() for match in YES_NO.finditer(said.lstrip(WRAPPING))}
    return found.pop() if len(found) == 1 else None if found else affirmed(said, form)


def yes_no_in_front(first: str, form: Form) -> str | None:
    match = re.match(rf"(?i)(?:yes|no)\b{NO_ONE}", first.lstrip(WRAPPING))
    return match[0].casefold() if match else None


def last_yes_no(text: str, form: Form) -> str | None:
    return next((verdict for one in reversed(sentences(text)) if (verdict := yes_no_named(one, form))), None)


def affirmed(sentence: str, form: Form) -> str | None:
    """Whether a sentence that has all words of the question affirms it. The state of a coin has two words for it."""
    asked = next((one for one in reversed(sentences(form.question)) if one.endswith("?")), "")
    if not asked or sentence.rstrip(WRAPPING).endswith("?"):
        return None
    denied = bool(DENIES.search(sentence))
    if "heads up" in asked.casefold():
        states = set(re.findall(r"\b(heads|tails)[ -]up\b", sentence.casefold()))
        return None if len(states) != 1 else "no" if denied != (states == {"tails"}) else "yes"
    said = {root(word) for word in content_words(sentence)}
    whole = all(root(word) in said for word in content_words(asked) if word != "still")
    return None if not whole else "no" if denied else "yes"


@dataclass(frozen=True)
class Rule:
    """How the answers of one kind are read: in what follows "the answer is", in a first sentence, in a whole text."""

    named: Callable[[str, Form], str | None]
    front: Callable[[str, Form], str | None]
    anywhere: Callable[[str, Form], str | None]


RULES = {
    "number": Rule(number_named, number_in_front, last_number),
    "choice": Rule(choice_named, choice_in_front, last_choice),
    "yes/no": Rule(yes_no_named, yes_no_in_front, last_yes_no),
}
