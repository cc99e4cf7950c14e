"""The mixture's table: LLaMA's proportions, endless sources, marks on what varies."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from helpers.rendered import folded, visible
from jupyter_gpt.report.report import MIME
from jupyter_gpt.report.text import columns
from jupyter_gpt.stages.corpus import corpus_report

LLAMA = [  # the talk's slide: source and sampling proportion
    ("CommonCrawl", 67.0),
    ("C4", 15.0),
    ("GitHub", 4.5),
    ("Wikipedia", 4.5),
    ("Books", 4.5),
    ("ArXiv", 2.5),
    ("StackExchange", 2.0),
]


@dataclass
class Row:
    source: str
    documents: int | None
    tokens: int | None
    weight: float
    share: float
    epochs: float | None
    varies: bool = False


def mixture():
    return [
        Row("stories", None, None, 3, 0.75, None),
        Row("python", 1_034, 9_876_543, 1, 0.25, 0.311, varies=True),
    ]


def test_llamas_mixture():
    rows = [
        {"source": s, "documents": 10, "tokens": 1000, "weight": w, "share": w / 100, "epochs": 1.1} for s, w in LLAMA
    ]
    text = corpus_report("llama", rows).text
    for source, weight in LLAMA:
        line = next(line for line in text.splitlines() if line.startswith(source))
        assert line.split() == [source, "10", "1,000", f"{weight:g}", f"{weight}%", "1.10"]
    assert text.splitlines()[-1].split() == ["total", "70", "7,000", "100", "100.0%"]


def test_columns_align_and_endless_is_said():
    lines = corpus_report("bedtime", mixture()).text.splitlines()[2:]
    assert lines[2].split() == ["stories", "∞", "∞", "3", "75.0%", "–"]
    assert len({columns(line) for line in lines[:4]}) == 1


def test_what_varies_is_marked_in_text_and_html_and_kept_out_of_the_json():
    report = corpus_report("bedtime", mixture())
    assert "≈1,034" in report.text and "≈9,876,543" in report.text and "≈0.31" in report.text
    assert {"1,034", "9,876,543", "0.31", "75.0%", "∞"} <= set(map(str.strip, visible(report.html).split("\n")))
    assert "1,034" not in folded(report.html) and "0.31" not in folded(report.html)
    assert "9876543" not in json.dumps(report.mime()[MIME])
    assert report.metadata["measured"]["python"]["tokens"] == 9_876_543
    assert report.data["rows"][0]["source"] == "stories" and report.data["rows"][1]["share"] == 0.25


def test_a_corpus_object_gives_its_name_and_rows():
    corpus = SimpleNamespace(name="bedtime", rows=mixture())
    assert corpus_report(corpus).text == corpus_report("bedtime", mixture()).text


def test_estimates_and_what_cannot_be_told_are_not_endless():
    rows = [
        {"source": "big", "documents": 10, "tokens": 999, "weight": 1, "share": 0.5, "estimated": True},
        {"source": "hub", "documents": None, "tokens": None, "weight": 1, "share": 0.5, "estimated": True},
    ]
    lines = [line.split() for line in corpus_report("wide", rows).text.splitlines()[4:]]
    assert lines[0][1:3] == ["~10", "~999"]
    assert lines[1][1:3] == lines[2][1:3] == ["?", "?"]
    assert corpus_report("one", [*rows, mixture()[0]]).text.splitlines()[-1].split()[1:3] == ["∞", "∞"]


def test_one_source_needs_no_sum():
    assert "total" not in corpus_report("one", mixture()[:1]).text


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", "\" onmouseover='x'"])
def test_hostile_names_are_escaped(evil):
    rows = [Row(evil, 1, 1, 1, 0.5, None), Row("b", 1, 1, 1, 0.5, None)]
    html = corpus_report(evil, rows).html
    assert evil not in html and "<script" not in html
