"""Reading answers and telling them apart: by the rule of each form, and on what a small model really said."""

import json
from pathlib import Path

import pytest

from jupyter_gpt.prompting.answers import (
    ANY,
    Form,
    clean,
    extract_answer,
    form_of,
    is_correct,
    normalize,
    options_in,
    stated_answer,
)

NUMBER = Form("number", question="Tom has 16 marbles and gets 24 more. How many has he?")
COIN = Form("yes/no", question="A coin is heads up. Ann flips the coin. Is the coin still heads up?")
WHALES = Form("yes/no", question="Do whales live in the sea?")
PLANETS = "Which is the Red Planet?\n(A) Venus\n(B) Mars\n(C) Jupiter"
PLANET = form_of("B", PLANETS)
SIDES = Form("choice", (("heads", "heads"), ("tails", "tails")))
TEXT = Form("text", question="What is the capital of France?")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("16 + 24 = 40. He has 40.", "40"),
        ("He had 16, then 24, so 40 in all.", "40"),
        ("So, Tom has 40 marbles after he got 24 more.", "40"),
        ("1. Take 16.\n2. Add 24.\n3. That is 40.", "40"),
        ("40", "40"),
        ("40 marbles.", "40"),
        ("**40**", "40"),
        ("$1,234.50", "1234.5"),
        ("The answer is 6e3.", "6000"),
        ("1.5E-05", "0.000015"),
        ("He has 2e3s", "2"),
        ("42%", "42"),
        ("-3", "-3"),
        ("1/2", "0.5"),
        ("2 1/2 hours", "2.5"),
        ("It is $1,234.50.", "1234.5"),
        ("x = -3", "-3"),
        ("10-3", "3"),
        ("\\frac{2}{3}", "2/3"),
        ("twelve", "12"),
        ("He has forty-two marbles.", "42"),
        ("two hundred and six", "206"),
        ("three thousand five hundred", "3500"),
        ("#### 1,234", "1234"),
        ("so \\boxed{42} it is", "42"),
        ("The answer is 40 marbles, 24 of them new.", "40"),
        ("The answer is 16 + 24 = 40.", "40"),
        ("Answer: 12\nNo wait.\nAnswer: 13", "13"),
        ("Hence 40 is the correct answer.", "40"),
        ("16 + 24 = 40\nThis is the answer.", "40"),
        ("The answer is:\n\n40", "40"),
        ("40 equals 16 plus 24.", "16"),
        ("No idea.", None),
        ("", None),
        ("Which one?", None),
        ("The answer is not 40.", "40"),
    ],
)
def test_numbers(text, answer):
    assert extract_answer(text, NUMBER) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes, the coin is heads up", "yes"),
        ("No.", "no"),
        ("**No**, it is tails.", "no"),
        ("Ann flips it. So the answer is no.", "no"),
        ("The coin is tails up.", "no"),
        ("The coin is not heads up.", "no"),
        ("It is still heads-up.", "yes"),
        ('The answer is: "No, it is not."', "no"),
        ("Is the coin still heads up?", None),
        ("The answer is yes, or No, as it is.", None),
        ("There is no way to know.", None),
        ("It is heads up or tails up.", None),
    ],
)
def test_coins(text, answer):
    assert extract_answer(text, COIN) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Whales live in the sea.", "yes"),
        ("Whales do not live in the sea.", "no"),
        ("Whales don't live in the sea", "no"),
        ("Whales are mammals.", None),
        ("No one knows.", None),
        ("yes", "yes"),
    ],
)
def test_yes_and_no(text, answer):
    assert extract_answer(text, WHALES) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is (B)", "B"),
        ("The answer is B.", "B"),
        ("B", "B"),
        ("(b)", "B"),
        ("B) Mars", "B"),
        ("B. Mars is red.", "B"),
        ("Mars.", "B"),
        ("It is Mars, not Venus. So (B).", "B"),
        ("The answer is Mars", "B"),
        ("A is wrong, so the answer is B", "B"),
        ("A) Venus\nB) Mars\nC) Jupiter", None),
        ("A) Venus\nB) Mars\nC) Jupiter\n\nThe correct answer is: B. Mars", "B"),
        ("I think that (C) is red.", "C"),
        ("B is correct.", "B"),
        ("A planet is red.", None),
        ("(D)", None),
        ("The answer is (letter).", None),
    ],
)
def test_choices(text, answer):
    assert extract_answer(text, PLANET) == answer


def test_choices_that_are_words():
    assert (
        extract_answer("It shows tails.", SIDES) == "tails" and extract_answer("The answer is Heads", SIDES) == "heads"
    )
    assert extract_answer("First heads, then tails.", SIDES) == "tails" and extract_answer("Neither.", SIDES) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Paris", "Paris"),
        ("The answer is: **Paris**. It lies on the Seine.", "Paris"),
        ("Paris is the capital. It lies on the Seine.", "Paris is the capital"),
        ("", None),
        ("word " * 60, None),
    ],
)
def test_texts(text, answer):
    assert extract_answer(text, TEXT) == answer


@pytest.mark.parametrize(
    ("text", "form", "answer"),
    [
        ("He had 16 and got 24, which is", NUMBER, None),
        ("The answer is 4", NUMBER, None),
        ("#### 40\n#### 41\n#### 4", NUMBER, None),
        ("So the answer is 40.\n\nTo check, we", NUMBER, "40"),
        ("40 marbles.\n\nTo see this, take", NUMBER, "40"),
        ("No, because Ann", COIN, None),
        ("No. It is tails because", COIN, "no"),
        ("(A) is no planet, (B) is", PLANET, None),
        ("B) Mars. It is red bec", PLANET, "B"),
        ("Paris. It is the", TEXT, "Paris"),
        ("The capital of", TEXT, None),
        ("The capital of", ANY, None),
        ("The answer is Par", ANY, None),
        ("The answer is Paris. It", ANY, "Paris"),
    ],
)
def test_what_was_cut_off_has_only_the_answer_that_it_names_or_begins_with(text, form, answer):
    assert extract_answer(text, form, cut=True) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 + 4 = 7. The answer is 7.", "7"),
        ("The final answer is: “yes”", "yes"),
        ("There is none to be had", None),
        ("the answer is not here", None),
        ("What is the answer?", None),
        ("Answer: +1; +2; +5", "+1; +2; +5"),
        ("The answer to the question is Paris.", "Paris"),
        ("It is 625. This is the answer to the question.", None),
        ("Your answer is correct.", None),
        ("Paris is the answer.", "Paris"),
        ("The answer is \\boxed{42}.", "42"),
        ("The answer is \\boxed{}, but it helps.", None),
        ("Of both options, one may confirm that A is correct.", None),
    ],
)
def test_what_a_text_names_where_nobody_said_what_the_answer_is(text, answer):
    assert stated_answer(text) == answer


def test_an_answer_alone_and_a_reply():
    assert extract_answer(
        "Blue, for the most part, as one can see on a clear day at noon in summer.", alone=True
    ).startswith("Blue")
    assert extract_answer("Blue, for the most part, as one can see on a clear day at noon in summer.") is None
    assert (
        extract_answer("Blue.") == "Blue"
        and extract_answer("Blue\nor green") is None
        and extract_answer("word " * 60, alone=True) is None
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" 42.\nBecause so.", "42"),
        ("is $3.50", "3.50"),
        ("Therefore, the answer is blue!", "blue"),
        ("  \n", ""),
        ("The final answer is: “yes”", "yes"),
        ("answer", "answer"),
    ],
)
def test_cleaning(text, answer):
    assert clean(text) == answer


@pytest.mark.parametrize(
    ("answer", "question", "answers", "kind"),
    [
        ("40", "", [], "number"),
        ("$1,234.50", "", [], "number"),
        ("42%", "", [], "number"),
        ("5 km", "", [], "number"),
        ("-3", "", [], "number"),
        ("twelve", "", [], "number"),
        ("9 * 8 = 72, so\n#### 72", "", [], "number"),
        ("Yes", "", [], "yes/no"),
        ("(B)", PLANETS, [], "choice"),
        ("B", "", ["A", "B", "B", "A", "A", "B", "B", "B"], "choice"),
        ("B", "", ["B"], "text"),
        ("heads", "", ["heads", "tails"] * 4, "choice"),
        ("Paris", "", ["Paris", "Rome"], "text"),
        ("12 Angry Men", "", [], "text"),
        ("Apollo 11", "", [], "text"),
        ("3 July 1990", "", [], "text"),
    ],
)
def test_the_key_says_what_the_answer_is(answer, question, answers, kind):
    assert form_of(answer, question, answers).kind == kind


def test_the_options_of_a_question():
    assert options_in(PLANETS) == {"A": "Venus", "B": "Mars", "C": "Jupiter"}
    assert options_in("Take one: (A) 4 km (B) 5 km") == {"A": "4 km", "B": "5 km"}
    assert options_in("Plan B. is good") == {}


@pytest.mark.parametrize(
    "alike",
    [
        ("$1,200.00", "1200"),
        ("42 apples", "about 42"),
        ("Paris", "paris."),
        ("the Red House", "red  house"),
        ("-3", "−3"),
        ("1/2", "0.5"),
        ("six", "6"),
        ("0.50", ".5"),
    ],
)
def test_the_same_answer_in_other_words(alike):
    assert normalize(alike[0]) == normalize(alike[1])


@pytest.mark.parametrize(
    "other",
    [
        ("12", "21"),
        ("1/2", "12"),
        ("-3", "3"),
        ("4 remainder 1", "4 remainder 2"),
        ("10", "1"),
        ("yes", "no"),
        ("0", "00.5"),
        ("1/0", "1"),
        ("A", "the"),  # an option, not an article
    ],
)
def test_other_answers_are_other_answers(other):
    assert normalize(other[0]) != normalize(other[1])


@pytest.mark.parametrize(
    ("answer", "expected", "form", "is_same"),
    [
        ("40", "She has 16 + 24.\n#### 40", NUMBER, True),
        ("0.5", "1/2", NUMBER, True),
        ("The capital of France is Paris", "Paris", TEXT, True),
        ("The capital is not Paris", "Paris", TEXT, False),
        ("Parish", "Paris", TEXT, False),
        ("the Nile River", "The Nile", TEXT, True),
        ("J.K. Rowling", "J. K. Rowling", TEXT, True),
        ("B", "(B)", PLANET, True),
        ("Mars", "B", PLANET, True),
        ("A", "B", PLANET, False),
    ],
)
def test_whether_an_answer_is_the_expected_one(answer, expected, form, is_same):
    assert is_correct(answer, expected, form) == is_same


def test_what_a_small_model_really_said():
    """268 replies of SmolLM2-135M-Instruct, direct and step by step, greedy and sampled, with what a person read in
    each (of free text: whether it says the expected answer; of one that was cut off: what it had called its answer).

    The rules were made on the 60 of "made on"; then the 108 of "first" were read, 99 of them right, and rules mended;
    then the 100 of "second", 94 right, and mended again. What stands here now is held to.
    """
    rows = json.loads((Path(__file__).parent / "transcripts.json").read_text(encoding="utf-8"))
    keys = {kind: [row["key"] for row in rows if row["kind"] == kind] for kind in {row["kind"] for row in rows}}
    wrong = {"made on": [], "first": [], "second": []}
    for row in rows:
        form = form_of(row["key"], row["question"], keys[row["kind"]])
        answer, reading = extract_answer(row["reply"], form, cut=row["cut"]), row["reading"]
        if row["kind"] == "text":
            right = (answer is not None and is_correct(answer, row["key"], form)) == reading
        else:
            right = answer is None if reading is None else answer is not None and is_correct(answer, reading, form)
        if not right:
            wrong[row["part"]].append((row["question"], answer, reading))
    assert (len(rows), {row["cut"] for row in rows}) == (268, {True, False})
    assert len(wrong["made on"]) <= 1 and len(wrong["first"]) <= 1 and len(wrong["second"]) <= 3, wrong
