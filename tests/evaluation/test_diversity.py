"""Diversity of texts whose measures can be counted by hand."""

import math

import pytest

from jupyter_gpt.evaluation.metrics import bleu, distinct, identical, self_bleu


def test_distinct_counts_within_a_prompt():
    assert distinct([["a b a", "a c"]], 1) == pytest.approx(3 / 5)
    assert distinct([["a b a", "a b"]], 2) == pytest.approx(2 / 3)
    assert distinct([["a b"], ["a b"]], 1) == 1.0
    assert distinct([["a", ""]], 2) is None


def test_identical_is_a_share_of_pairs():
    assert identical([["x", "x", "y"], ["z", "z"]]) == pytest.approx(2 / 4)
    assert identical([["alone"], ["other"]]) is None


def test_bleu_by_hand():
    same = ["the", "old", "fox", "sat"]
    assert bleu(same, [same]) == pytest.approx(1.0)
    assert bleu(same, [["a", "b", "c", "d"]]) == 0.0
    # unigrams 3/4, bigrams (1+1)/(3+1), trigrams (0+1)/(2+1), 4-grams (0+1)/(1+1); as long as its reference
    wanted = math.exp(sum(map(math.log, (3 / 4, 2 / 4, 1 / 3, 1 / 2))) / 4)
    assert bleu(same, [["the", "old", "hen", "sat"]]) == pytest.approx(wanted)
    # half as long: brevity penalty exp(1 - 4/2)
    assert bleu(["the", "old"], [same]) == pytest.approx(math.exp(1 - 4 / 2))


def test_bleu_is_sacrebleus():
    sacrebleu = pytest.importorskip("sacrebleu")
    text, references = (
        ["the", "old", "fox", "saw", "a", "small", "red", "bird"],
        [["the", "old", "hen", "saw", "a", "red", "bird"], ["a", "fox", "saw", "a", "bird"]],
    )
    scorer = sacrebleu.BLEU(smooth_method="add-k", smooth_value=1, effective_order=True, tokenize="none")
    theirs = scorer.sentence_score(" ".join(text), [" ".join(r) for r in references]).score / 100
    assert bleu(text, references) == pytest.approx(theirs, abs=1e-6)


def test_self_bleu_is_one_when_all_are_alike_and_low_when_none_is():
    assert self_bleu([["the fox sat down"] * 3]) == pytest.approx(1.0)
    assert self_bleu([["a b c d", "e f g h"]]) == 0.0
    assert self_bleu([["alone"]]) is None
