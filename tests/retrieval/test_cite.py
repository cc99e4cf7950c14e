"""Citations: sentences are told apart, and held against their sources."""

import numpy as np
import pytest

from jupyter_gpt.retrieval import cite

SOURCES = [
    "Every employee has 27 days of paid leave a year. It is asked for by mail.",
    "The printer is called Gutenberg.",
]


def vectors(texts):
    """Shared words as directions."""
    words = sorted({word for text in texts for word in text.lower().split()})
    out = np.array([[1.0 * (word in text.lower().split()) for word in words] + [0.01] for text in texts])
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def verdicts(answer, question=""):
    return [check.verdict for check in cite.check(answer, SOURCES, vectors, question)]


def test_sentences():
    text = 'Dr. Fox has 3.5 days. [1] He sang! Did he? "Yes." he said [1, 2].\nNext line\n- a list'
    assert cite.sentences(text) == [
        "Dr. Fox has 3.5 days. [1]", "He sang!", "Did he?", '"Yes." he said [1, 2].', "Next line", "- a list",
    ]  # fmt: skip
    assert cite.sentences("一句话。另一句。") == ["一句话。", "另一句。"]
    assert cite.sentences("No. 5 is red. No. It is not.") == ["No. 5 is red.", "No.", "It is not."]
    assert cite.sentences("") == []
    assert cite.cited_in("So it is [2], [1; 3].") == (2, 1, 3)


@pytest.mark.parametrize("answer, verdict, by", [
    ("Every employee has 27 days of paid leave a year [1].", cite.SUPPORTED, (1,)),
    ("Every employee has 27 days of paid leave a year.", cite.SUPPORTED, (1,)),
    ("Every employee has 27 days of paid leave a year [2].", cite.ELSEWHERE, (1,)),
    ("Every employee has 28 days of paid leave a year [1].", cite.UNSUPPORTED, ()),
    ("The moon is made of green cheese [1].", cite.UNSUPPORTED, ()),
    ("The printer is called Gutenberg [7].", cite.ELSEWHERE, (2,)),
    ("[1]", cite.NOTHING, ()),
])  # fmt: skip
def test_each_sentence_against_each_source(answer, verdict, by):
    [check] = cite.check(answer, SOURCES, vectors)
    assert (check.verdict, check.by) == (verdict, by)
    assert check.support >= cite.THRESHOLD if by else check.support < cite.THRESHOLD


def test_words_of_the_question_are_no_support():
    assert verdicts("The name of the printer is Caxton.", "What is the name of the printer?") == [cite.UNSUPPORTED]
    assert verdicts("The printer is called Gutenberg.", "What is the printer called?") == [cite.SUPPORTED]


def test_several_sentences_and_no_sources():
    assert verdicts("The printer is called Gutenberg. It was bought in Mainz.") == [cite.SUPPORTED, cite.UNSUPPORTED]
    assert [check.verdict for check in cite.check("So it is.", [], vectors)] == [cite.UNSUPPORTED]


def test_quoted_words_are_found_in_their_source():
    [run] = cite.quoted_runs("It says that employees have 27 Days of paid leave [1], always.", SOURCES[0])
    assert SOURCES[0][slice(*run)] == "27 days of paid leave"
    assert cite.quoted_runs("27 days", SOURCES[0]) == []
