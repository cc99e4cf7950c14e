"""The views of retrieval: nothing of a document or an answer is markup, and words say what pictures show."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.rendered import Tags, folded, visible
from jupyter_gpt.errors import GPTError
from jupyter_gpt.report.html import inline as html_of
from jupyter_gpt.report.report import Report
from jupyter_gpt.retrieval import index_map
from jupyter_gpt.retrieval.cite import Checked
from jupyter_gpt.retrieval.search import Hit
from jupyter_gpt.stages import rag
from jupyter_gpt.stages.rag import Answer, Meter

EVIL = "<script>alert(1)</script> «leave» is <b>27</b> days of every working year & more"
KEPT = {"div", "span", "p", "br", "details", "summary", "table", "tr", "td", "th", "thead", "tbody", "b", "i", "img"}


def hit(text=EVIL, n=0, **more):
    facts = {
        "text": text,
        "source": "a<i>.pdf",
        "page": 3,
        "score": 0.61,
        "heading": "Leave <u>",
        "cosine": 0.61,
        "keyword": None,
        "row": n,
        "chunk": n,
        "sources": ("a<i>.pdf",),
    }
    return Hit(**{**facts, **more})


@pytest.fixture
def answer():
    checks = [
        Checked("It is 27 days of every working year [1].", (1,), (1,), 0.9, "supported"),
        Checked("Pirates <i>rule</i>.", (), (), 0.2, "not supported", "not in the source: Pirates"),
    ]
    return Answer(
        "leave?",
        "leave?",
        "docs",
        [hit(), hit("Other.", 1)],
        [hit("Long.", 2)],
        0.3,
        0.61,
        " ".join(c.text for c in checks),
        checks,
        None,
        None,
        Meter(512, (60, 20), 100, 64),
    )


def test_everything_is_text_and_survives_a_sanitizer(answer):
    for report in (rag.answer_report(answer), rag.hits_report("docs", "leave <x>?", answer.hits, "by cosine")):
        tags = Tags(report.html)
        assert tags.seen <= KEPT and "<script>alert(1)</script>" in tags.text
        assert "var(" not in report.html


def test_sentences_are_tinted_by_what_supports_them(answer):
    report = rag.answer_report(answer)
    for said in ("1 of 2 sentences supported by a source", "in no source: Pirates", "(not in the source: "):
        assert said in report.text and said in visible(report.html)
    html = html_of(rag.sentences(answer))
    assert html.count(rag.GOOD) == 1 and html.count(rag.BAD) == 1 and "⚠ in no source" in html


def test_the_meter_says_what_it_shows(answer):
    html = Report("", rag.meter(answer)).html
    assert (
        "context of 512 tokens: 80 in 2 sources, 100 of instructions and question, 64 reserved for the answer, 268 free"
        in visible(html)
    )
    widths = [float(w) for w in re.findall(r"width:([\d.]+)%;background", html)]
    assert widths == pytest.approx([100 * n / 512 for n in (100, 60, 20, 64, 268)], abs=0.01)


def test_below_the_relevance_threshold_no_model_is_asked(answer):
    answer.left, answer.hits, answer.best, answer.near = answer.hits, [], 0.21, 0.28
    text = rag.answer_report(answer).text
    assert "best match: cosine 0.21, below the 0.28 relevance threshold" in text and "no model was asked" in text


def test_the_sections_of_a_chunk_are_one_blank_line_apart(answer):
    hit = replace(answer.hits[0], text="# Leave\n\n\n## How long\n27 days.")
    lines = [line.strip() for line in rag.hits_report("docs", "leave?", [hit], "by cosine").text.splitlines()]
    assert lines[lines.index("## How long") - 1] == "" and lines[lines.index("## How long") - 2].endswith("# Leave")


def test_words_and_quotations_are_lit():
    html = html_of(
        rag.lit("Leave is 27 days of every working year.", "How much leave?", "It is 27 days of every working year.")
    )
    assert re.search(rf'{re.escape(rag.WORDS)}[^>]*">Leave</span>', html)
    assert re.search(rf'{re.escape(rag.QUOTED)}[^>]*">is 27 days of every working year</span>', html)


def test_what_did_not_fit_is_said(answer):
    assert "did not fit into the context: 1 of 3 chunks (a<i>.pdf, page 3)" in rag.answer_report(answer).text


def test_nbval_sees_nothing_that_may_differ(answer):
    before = rag.answer_report(answer)
    answer.hits, answer.checks, answer.text = [hit("Quite other.", 5)], [], "Other."
    after = rag.answer_report(answer)
    assert folded(before.text) == folded(after.text) and folded(before.html) == folded(after.html)
    assert before.data == after.data


def test_the_plane_is_that_of_the_principal_components():
    draw = np.random.default_rng(0)
    vectors = (draw.normal(size=(200, 8)) * [9, 4, 1, 1, 0.5, 0.5, 0.1, 0.1]).astype(np.float32)
    places, here, share = index_map.plane(vectors, vectors[3])
    _, values, axes = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    expected = (vectors - vectors.mean(0)) @ axes[:2].T
    assert np.allclose(np.abs(places), np.abs(expected), atol=1e-3) and np.allclose(here, places[3], atol=1e-4)
    assert share == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), abs=1e-4)


def test_umap_is_an_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(GPTError, match=r"jupyter_gpt\[umap\]"):
        index_map.plane(np.eye(5, dtype=np.float32), np.ones(5, dtype=np.float32), "umap")


def test_the_map_is_a_picture_and_words(monkeypatch):
    matrix = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    monkeypatch.setattr(index_map, "drawn", lambda index, hits: (np.arange(40), [f"_doc{i % 10}" for i in range(40)]))
    kept = SimpleNamespace(files=SimpleNamespace(matrix=lambda: matrix))
    report = Report("", index_map.index_map(kept, matrix[7], [hit(n=7), hit(n=9)]))
    assert report.text.startswith("map (PCA): 40 chunks of 10 documents; the question is 0% of the map's width")
    assert '<img src="data:image/png;base64,' in report.html and 'alt="map (PCA): 40 chunks' in report.html
