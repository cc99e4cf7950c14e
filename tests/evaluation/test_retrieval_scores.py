"""Recall, MRR and nDCG by hand; what a row of questions may say; generated facts."""

import math
from types import SimpleNamespace

import pytest

from benchmarks.facts import documents, facts
from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.metrics import wilson
from jupyter_gpt.stages.evaluate_index import ndcg, questions_of, reciprocal_rank, recommended, right, scores


def hit(text, source="a.txt", page=None, chunk=0):
    return SimpleNamespace(text=text, sources=(source,), page=page, chunk=chunk)


def test_the_measures_are_those_of_their_formulas():
    assert reciprocal_rank([False, True, True]) == 1 / 2 and reciprocal_rank([False]) == 0
    assert ndcg([False, True, True], 3) == pytest.approx((1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3)))
    assert ndcg([True, False], 2) == 1 and ndcg([False], 1) == 0
    asked = questions_of(
        [{"question": "q", "quote": ["red fox", "hen"]}, {"question": "r", "source": "b.txt", "page": 2}]
    )
    found = [[hit("A  Red\nfox."), hit("x"), hit("a hen")], [hit("y", "b.txt", 1), hit("y", "b.txt", 2)]]
    assert scores(asked, found, (1, 3)) == pytest.approx(
        {
            "recall@1": 0.25,
            "recall@3": 1.0,
            "mrr": (1 + 1 / 2) / 2,
            "ndcg@1": 0.5,
            "ndcg@3": ((1 + 1 / 2) / (1 + 1 / math.log2(3)) + 1 / math.log2(3)) / 2,
        }
    )


def test_the_way_that_finds_most_and_those_within_its_interval():
    ways = [
        {"search": way, "recall@1": at_1, "mrr": mrr}
        for way, at_1, mrr in (
            ("dense", 0.89, 0.92),
            ("--keyword", 0.93, 0.95),
            ("--hybrid 0.5", 0.93, 0.96),
            ("poor", 0.5, 0.6),
            ("model", math.nan, math.nan),
        )
    ]
    best, figure, interval, within = recommended(ways, 200)
    assert (best["search"], figure) == ("--hybrid 0.5", "recall@1") and interval == wilson(0.93, 200)
    assert [row["search"] for row in within] == ["--keyword", "dense"]
    assert [row["search"] for row in recommended(ways, 2000)[3]] == ["--keyword"]


def test_a_chunk_by_its_number():
    [question] = questions_of([{"question": "q", "chunk": ["a.txt", 3]}])
    assert [question.evidence[0](hit("", chunk=n)) for n in (2, 3)] == [False, True]


@pytest.mark.parametrize("rows", [[], [{"q": "x"}], [{"question": "x"}], 7, "text"])
def test_rows_that_say_too_little(rows):
    with pytest.raises(GPTError, match=r"^[^\n]*$"):
        questions_of(rows)


def test_an_answer_is_right_when_it_stands_there_in_whole_words():
    assert right("It is 1,234 metres: Old Maps!", "old maps") and right("It is 27.", "27")
    assert not right("It is 127.", "27") and not right("", "x") and not right("x", "")


def test_facts_are_unlike_and_their_documents_hold_them():
    found = facts(60, seed=3)
    assert found == facts(60, seed=3) != facts(60, seed=4)
    assert len({fact.question for fact in found}) == 60
    assert all(fact.answer in fact.text for fact in found)
    texts = documents(60, seed=3)
    assert len(texts) == 15 and all(fact.text in texts[i // 4] for i, fact in enumerate(found))
