"""Keywords: BM25 against its formula, words of several scripts, and nothing read that is not there."""

import math

import numpy as np
import pytest

from jupyter_gpt.retrieval import keyword

TEXTS = ["The fox saw the hen.", "A hen laid three eggs, and a hen sang.", "Foxes are red.", "Nobody sang."]


@pytest.fixture
def built(tmp_path):
    return keyword.build(TEXTS, [5, 0, 2, 7], tmp_path / "keyword", 3)


def bm25(query, k1=1.5, b=0.75):
    """Lucene's form: idf = ln(1 + (N - n + 0.5)/(n + 0.5)), times tf/(tf + k1 (1 - b + b |d|/mean))."""
    documents = [keyword.words(text) for text in TEXTS]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for word in query:
            n = sum(word in other for other in documents)
            tf = document.count(word)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            score += idf * tf / (tf + k1 * (1 - b + b * len(document) / mean))
        scores.append(score)
    return scores


def test_the_scores_are_those_of_the_formula(built):
    rows, scores = built.search("Which hen sang?", 10, np.ones(8, dtype=bool))
    expected = dict(zip([5, 0, 2, 7], bm25(["hen", "sang"]), strict=True))
    assert rows == sorted((r for r in expected if expected[r] > 0), key=lambda r: -expected[r])
    assert scores == pytest.approx([expected[row] for row in rows], rel=1e-4)


def test_plural_accents_and_common_words(built):
    everything = np.ones(8, dtype=bool)
    assert built.search("the FOX", 10, everything)[0] == [2, 5]
    assert built.search("the", 10, everything)[0] == [5]  # of nothing else, they count
    assert keyword.words("Müller's cafés") == ["muller", "s", "cafe"]
    assert keyword.content_words("How many days of leave do I have?") == ["many", "day", "leave"]


def test_a_query_in_another_script(built, tmp_path):
    everything = np.ones(8, dtype=bool)
    assert built.search("狐狸看见了什么", 10, everything) == ([], [])
    chinese = keyword.build(["狐狸看见了母鸡", "火车是二等座"], [0, 1], tmp_path / "zh", 1)
    assert chinese.search("火车", 5, np.ones(2, dtype=bool))[0] == [1]


def test_only_what_is_allowed(built):
    allowed = np.ones(8, dtype=bool)
    allowed[0] = False
    assert built.search("hen sang", 10, allowed)[0] == [7, 5]


def test_it_is_kept_for_the_state_it_was_made_of(built, tmp_path):
    again = keyword.load(tmp_path / "keyword", 3)
    everything = np.ones(8, dtype=bool)
    assert again.search("hen sang", 10, everything) == built.search("hen sang", 10, everything)
    assert keyword.load(tmp_path / "keyword", 4) is None
    (tmp_path / "keyword" / "about.json").write_text("{")
    assert keyword.load(tmp_path / "keyword", 3) is None
    assert keyword.load(tmp_path / "nothing", 3) is None


def test_texts_without_a_word(tmp_path):
    empty = keyword.build(["…", "!"], [0, 1], tmp_path / "none", 1)
    assert empty.search("fox", 5, np.ones(2, dtype=bool)) == ([], [])
