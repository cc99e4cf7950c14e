"""Search: the ways to rank, each against what its formula says by hand; and a cross-encoder against transformers."""

import numpy as np
import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.retrieval import build, search
from jupyter_gpt.retrieval.document_sources import Item
from jupyter_gpt.retrieval.index import Index
from jupyter_gpt.retrieval.search import Searcher, fuse, select_mmr

TEXTS = {
    "leave.md": "# Leave\n\nLeave is 27 days a year.\n\n# Travel\n\nTrains are second class. A train is slow.",
    "it.md": "# Printers\n\nThe printer is called Gutenberg. It prints all days of the year.",
    "far.md": "# Far\n\nNothing of all that: zebras, kites and quartz.",
}


@pytest.fixture
def searcher(tmp_path, embedder):
    index = Index(tmp_path / "index")
    index.write_about({"embedder": "words", "dimensions": 1024, "chunk_tokens": 12, "overlap": 0})
    from jupyter_gpt.retrieval.read import markdown

    class Marked(Item):
        def load(self):
            return markdown(self.text)

    items = [Marked(name, text=text) for name, text in TEXTS.items()]
    for _ in build.update(index, items, embedder, build.Report(), lambda: False):
        pass
    return Searcher(index)


@pytest.fixture
def ask(searcher, embedder):
    def asked(question, k=3, **options):
        [(_, vectors)] = embedder.batches([question], "query")
        return searcher.search(question, vectors[0], k, **options)

    return asked


def test_by_meaning_alone(ask, searcher, embedder):
    hits = ask("how many days of leave in a year", 4)
    assert hits[0].heading == "Leave" and hits[0].where == "leave.md" and "27 days" in hits[0].text
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.score == hit.cosine and hit.keyword is None for hit in hits)
    [(_, [vector])] = embedder.batches(["how many days of leave in a year"], "query")
    assert hits[0].score == pytest.approx(float(searcher.matrix[hits[0].row] @ vector), abs=1e-6)


def test_reciprocal_ranks_are_summed():
    assert fuse(([4, 7], 1), ([7, 9], 1)) == pytest.approx({4: 1 / 61, 7: 1 / 62 + 1 / 61, 9: 1 / 62})
    assert fuse(([4, 7], 1.5), ([7, 9], 0.5)) == pytest.approx({4: 1.5 / 61, 7: 1.5 / 62 + 0.5 / 61, 9: 0.5 / 62})
    assert fuse(([4, 7], 2), ([7, 9], 0)) == pytest.approx({4: 2 / 61, 7: 2 / 62}), "a list of no weight adds nothing"


def test_hybrid_finds_what_one_of_them_misses(ask):
    hits = ask("Gutenberg", 4, hybrid=0.5)
    assert "Gutenberg" in hits[0].text and hits[0].keyword > 0
    assert hits[0].score == pytest.approx(2 / 61)


def test_mmr_takes_what_is_unlike_the_taken():
    a, b = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    matrix = np.array([a, [0.99, 0.141, 0.0], b], dtype=np.float32)
    assert select_mmr(matrix, [0, 1, 2], [0.9, 0.89, 0.6], 2) == [0, 2]
    assert select_mmr(matrix, [0, 1, 2], [0.9, 0.89, 0.1], 2) == [0, 1]
    assert select_mmr(matrix, [0, 1], [0.9, 0.8], 5) == [0, 1]


def test_a_reranker_has_the_last_word(ask):
    hits = ask("days", 2, rerank=lambda question, texts: [float("quartz" in text) for text in texts])
    assert "quartz" in hits[0].text and hits[0].score == 1.0 and hits[0].cosine < 0.9


QUARTZ = "how many days of leave in a year"


def by_quartz(question, texts):
    """A reranker that likes quartz most, then printers, and scores as cross-encoders do, far outside of 0 to 1."""
    return [9.0 * ("quartz" in text) + 4.0 * ("printer" in text) - 5.0 for text in texts]


def test_the_words_alone(ask, searcher):
    hits = ask("days of the printer", 5, keyword=True)
    rows, scores = searcher.by_words("days of the printer", 5)
    assert [(hit.row, hit.score, hit.keyword) for hit in hits] == [(r, s, s) for r, s in zip(rows, scores, strict=True)]
    assert "printer" in hits[0].text and len(hits) < 5, "what has none of the words is not found"
    assert all(-1 <= hit.cosine <= 1 for hit in hits) and ask("xyzzy", keyword=True) == []
    assert [hit.heading for hit in ask("days", 9, keyword=True, where="heading == 'Leave'")] == ["Leave"]


def test_the_ends_of_the_weight_are_the_two_searches(ask):
    question = "days of the printer"
    dense, words = ([hit.row for hit in ask(question, 5, **how)] for how in ({}, {"keyword": True}))
    assert [hit.row for hit in ask(question, 5, hybrid=1.0)] == dense
    assert [hit.row for hit in ask(question, 5, hybrid=0.0)] == words


def test_mmr_spreads_what_the_others_have_found_and_ordered(ask, searcher):
    for how in ({"hybrid": 0.5}, {"keyword": True}, {"rerank": by_quartz}, {"hybrid": 0.5, "rerank": by_quartz}):
        ranked = ask(QUARTZ, 5, **how)
        spread_out = ask(QUARTZ, 5, mmr=True, **how)
        assert spread_out[0] == ranked[0], "the first is the best by what ranks them"
        assert {hit.row: hit.score for hit in spread_out} == {hit.row: hit.score for hit in ranked}
        rows, scores = [hit.row for hit in ranked], [hit.score for hit in ranked]
        assert [hit.row for hit in spread_out] == select_mmr(searcher.matrix, rows, search.min_max_scaled(scores), 5)
    assert "quartz" in ask(QUARTZ, 1, mmr=True, rerank=by_quartz)[0].text, "before, the cosine had the last word"
    assert search.min_max_scaled([9.0, 4.0, -1.0]) == [1.0, 0.5, 0.0] and search.min_max_scaled([2.0, 2.0]) == [
        1.0,
        1.0,
    ]


def test_filters(ask):
    assert {hit.source for hit in ask("days of the year", 9, where="source == 'it.md'")} == {"it.md"}
    assert [hit.heading for hit in ask("days", 9, where="heading == 'Travel'", hybrid=0.5)] == ["Travel"]
    assert ask("days", 9, where="page > 3") == []


def test_a_cross_encoder_reads_pairs(tiny_embedder, tmp_path):
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from jupyter_gpt.retrieval.embed import cross_encoder_from_folder as from_folder

    tokenizer = AutoTokenizer.from_pretrained(tiny_embedder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=1,
        initializer_range=0.5,
    )
    module = BertForSequenceClassification(config).eval()
    module.save_pretrained(tmp_path / "ce")
    tokenizer.save_pretrained(tmp_path / "ce")
    texts = ["The old fox saw three birds.", "It sang.", "leave " * 100]
    with torch.inference_mode():
        expected = [
            float(
                module(
                    **tokenizer("leave days", text, truncation="only_second", max_length=64, return_tensors="pt")
                ).logits[0, 0]
            )
            for text in texts
        ]
    assert from_folder("ce", tmp_path / "ce", "cpu")("leave days", texts) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(GPTError, match="not a cross-encoder"):
        from_folder("tiny", tiny_embedder, "cpu")


def test_more_than_there_is(ask):
    assert len(ask("days", 99)) == len(ask("days", 99, hybrid=0.5)) == 5
    assert search.part_of("a.csv") == "row" and search.part_of("$docs[0]") == "page"
