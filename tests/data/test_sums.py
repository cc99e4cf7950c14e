"""Sums: every step and every answer is worked out again here, by other means than the generator's."""

import itertools
import re

import pytest

from jupyter_gpt.data import sums

PROBLEMS = [sums.problem(3, index) for index in range(6000)]
OF = {kind.__name__: [p for p in PROBLEMS if p.kind == kind.__name__] for kind in sums.KINDS}


def value(expression: str) -> int:
    """The value of an expression of + - * / and brackets, by recursive descent."""
    tokens = re.findall(r"\d+|[-+*/()]", expression)

    def atom() -> int:
        token = tokens.pop(0)
        if token == "-":
            return -atom()
        if token == "(":
            inner = terms()
            assert tokens.pop(0) == ")"
            return inner
        return int(token)

    def factors() -> int:
        left = atom()
        while tokens and tokens[0] in "*/":
            if tokens.pop(0) == "*":
                left *= atom()
            else:
                left, rest = divmod(left, atom())
                assert rest == 0
        return left

    def terms() -> int:
        left = factors()
        while tokens and tokens[0] in "+-":
            left = left + factors() if tokens.pop(0) == "+" else left - factors()
        return left

    result = terms()
    assert not tokens
    return result


@pytest.mark.parametrize("kind", OF)
def test_every_kind_occurs(kind):
    assert len(OF[kind]) > 300
    assert len({p.question for p in OF[kind]}) > 40


def test_every_equation_in_a_step_holds():
    equations = 0
    for p in PROBLEMS:
        for step in p.steps:
            for left, right in re.findall(r"([-\d+*/() ]+) = (-?\d+)", step):
                assert value(left) == int(right), (p, step)
                equations += 1
            for left, sign, right in re.findall(r"^(\d+) ([<>=]) (\d+)$", step):
                assert {"<": int(left) < int(right), ">": int(left) > int(right), "=": left == right}[sign]
    assert equations > 8000


@pytest.mark.parametrize("kind", ["addition", "subtraction", "multiplication", "chain"])
def test_expressions(kind):
    for p in OF[kind]:
        expression = re.search(r"[\d(][-\d+*() ]*", p.question)[0]
        assert value(expression) == int(p.answer), p


def test_columns_of_an_addition_spell_its_answer():
    for p in OF["addition"]:
        digits = [step.split(" = ")[-1].split(",")[0][-1] if "=" in step else "1" for step in p.steps]
        assert "".join(reversed(digits)) == p.answer, p
        assert all(
            ("carry 1" in step) == (int(step.split(" = ")[1].split(",")[0]) > 9) for step in p.steps if "=" in step
        ), p
    assert any("+ 1 =" in step for p in OF["addition"] for step in p.steps)


@pytest.mark.parametrize("kind", ["subtraction", "multiplication", "chain", "sequence", "word_problem"])
def test_the_last_step_gives_the_answer(kind):
    for p in OF[kind]:
        assert p.steps and p.steps[-1].endswith(f"= {p.answer}"), p


def test_division():
    for p in OF["division"]:
        number, divisor = map(int, re.findall(r"\d+", p.question))
        quotient, rest = divmod(number, divisor)
        assert p.answer == f"{quotient} remainder {rest}"


def test_comparison():
    for p in OF["comparison"]:
        first, second = re.search(r"larger, (.+) or (.+)\?", p.question).groups()
        larger = {True: first, False: second}[value(first) > value(second)]
        assert p.answer == ("they are equal" if value(first) == value(second) else larger)
    assert {"they are equal"} < {p.answer for p in OF["comparison"]}


def test_counting():
    for p in OF["counting"]:
        letter, word = re.findall(r'"(\w+)"', p.question)
        assert int(p.answer) == sum(character == letter for character in word)
        assert [step[0] for step in p.steps] == list(word)
        assert [int(step[3:]) for step in p.steps] == [word[: i + 1].count(letter) for i in range(len(word))]
    assert {"0", "1", "2"} <= {p.answer for p in OF["counting"]}


def test_reversal():
    for p in OF["reversal"]:
        word = re.search(r'"(\w+)"', p.question)[1]
        assert p.answer == "".join(reversed(word))
        assert p.steps[-1].split(": ")[1].replace(" ", "") == p.answer


def test_sorting():
    for p in OF["sorting"]:
        digits = re.findall(r"\d", p.question)
        assert p.answer.split() == sorted(digits, reverse="large to small" in p.question)
        taken = [step[5] for step in p.steps]
        assert taken == p.answer.split()
        for i, step in enumerate(p.steps[:-1]):
            assert sorted(step.split(": ")[1].split()) == sorted(p.answer.split()[i + 1 :])


def test_sequence():
    for p in OF["sequence"]:
        a, b, c, d = map(int, re.findall(r"\d+", p.question))
        if b - a == c - b == d - c:
            assert int(p.answer) == 2 * d - c
        else:
            assert a * d == b * c and int(p.answer) * c == d * d


def test_word_problems():
    for p in OF["word_problem"]:
        n = list(map(int, re.findall(r"\d+", p.question)))
        if "finds" in p.question:
            right = n[0] + n[1] - n[2]
        elif "boxes" in p.question:
            right = n[0] * n[1] + n[2]
        elif "shares" in p.question:
            right = (n[0] - n[1]) / n[2]
        else:
            right = n[2] - n[0] * n[1]
        assert float(p.answer) == right and right >= 0, p


def test_numbers_agree_with_their_nouns():
    assert not [p for p in PROBLEMS if re.search(r"\b1 [a-z]+s\b", p.question)]
    assert sums.plural(1, "nuts") == "1 nut" and sums.plural(2, "nuts") == "2 nuts"


def test_same_index_same_sum():
    assert sums.problem(3, 11) == PROBLEMS[11]
    assert sums.problem(4, 11) != PROBLEMS[11]


def test_documents_with_and_without_steps():
    bare = list(itertools.islice(sums.documents(3, steps=False), 100))
    full = list(itertools.islice(sums.documents(3, steps=True), 100))
    mixed = list(itertools.islice(sums.documents(3), 100))
    assert bare == [f"{p.question}\nAnswer: {p.answer}" for p in PROBLEMS[:100]]
    assert full == ["\n".join((p.question, *p.steps, f"Answer: {p.answer}")) for p in PROBLEMS[:100]]
    assert mixed == [full[i] if i % 2 else bare[i] for i in range(100)]
    assert all(text.isascii() for text in full)
