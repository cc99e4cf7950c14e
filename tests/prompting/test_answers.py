"""Reading answers and telling them apart."""

import pytest

from jupyter_gpt.prompting.answers import answer_in, cleaned, fits, key


@pytest.mark.parametrize(("text", "answer"), [
    ("3 + 4 = 7. The answer is 7.", "7"),
    ("Answer: 12\nNo wait.\nAnswer: 13", "13"),
    ("so \\boxed{42} it is", "42"),
    ("#### 1,234", "1,234"),
    ("The answer is: **Paris**.", "Paris"),
    ("the answer is", None),
    ("There is none to be had", None),
])  # fmt: skip
def test_the_answer_in_a_text(text, answer):
    assert answer_in(text) == answer


@pytest.mark.parametrize(("text", "answer"), [
    (" 42.\nBecause so.", "42"), ("is $3.50", "3.50"), ("Therefore, the answer is blue!", "blue"), ("  \n", ""),
    ("The final answer is: “yes”", "yes"), ("answer", "answer"),
])  # fmt: skip
def test_cleaning(text, answer):
    assert cleaned(text) == answer


@pytest.mark.parametrize("same", [
    ("$1,200.00", "1200"), ("42 apples", "about 42"), ("Paris", "paris."), ("the Red House", "red  house"), ("-3", "−3"),
])  # fmt: skip
def test_the_same_answer_in_other_words(same):
    assert key(same[0]) == key(same[1])


@pytest.mark.parametrize("other", [
    ("12", "21"), ("1/2", "12"), ("-3", "3"), ("4 remainder 1", "4 remainder 2"), ("10", "1"), ("yes", "no"), ("0", "00.5"),
])  # fmt: skip
def test_other_answers_are_other_answers(other):
    assert key(other[0]) != key(other[1])


def test_an_essay_is_no_answer():
    assert not fits("word " * 60) and not fits("") and not fits(None) and fits("12")
