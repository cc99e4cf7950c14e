"""The leaderboard: what it shows, what it keeps to itself while votes are asked for, and what nbval folds."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

pytest.importorskip("anywidget")

from helpers.rendered import folded
from jupyter_gpt.notebook.views.rank import Page
from jupyter_gpt.notebook.views.rank_form import RankForm
from jupyter_gpt.stages.arena import Arena
from jupyter_gpt.stages.ranking_task import ranking_report
from jupyter_gpt.stages.rankings import Question, Rankings

EVIL = "<script>alert('x')</script> »«"


def make(tmp_path, words: str = EVIL) -> Arena:
    questions = [
        Question(
            prompt,
            tuple({"model": m, "text": t, "seed": 0, "times": 1} for m, t in zip(("ann", "bob"), texts, strict=True)),
            (1, 0),
            (("ann", f"<|a|>{prompt}"), ("bob", f"<|b|>{prompt}")),
        )
        for prompt, texts in (("Why?", (words, "because")), ("Who?", ("me", "you")), ("Yes?", ("yes", "yes")))
    ]
    about = {"ann": "assistant", "bob": "bob at <there>"}
    file, options = Rankings(tmp_path / "arena-ann-bob.jsonl"), {"samples": 1, "seed": 3}
    return Arena(file, questions, ["ann", "bob"], options, about=about)


def test_the_leaderboard_and_the_battles(tmp_path):
    arena = make(tmp_path)
    arena.choose(0, 1)
    report = ranking_report(arena)
    lines = report.text.splitlines()
    assert lines[:2] == ["arena ann, bob", "3 prompts, temperature 0.7, at most 256 tokens, seed 3"]
    assert re.match("«1 ranked, 1 missing; bob 10.., ann 9.. · 1 with identical completions · by person 1»", lines[2])
    assert re.match(r" +1  bob +10\d\d +\d+ to \d+ +1 +1 +0  bob at <there>", lines[7])
    assert lines[lines.index("1. Why?") :] == [
        "1. Why?",
        "",
        "1  because (bob)",
        "2  <script>alert('x')</script> ›‹ (ann)",
        "",
        "2. Who?",
        "",
        "–  you (bob)",
        "–  me (ann)",
        "   not ranked yet",
        "",
        "3. Yes?",
        "",
        "–  yes (bob)",
        "–  yes (ann)",
        "»",
    ]
    assert "<script" not in report.html and "bob at &lt;there&gt;" in report.html and "&lt;|a|&gt;Why?" in report.html
    assert report.html.index("<b>bob</b>") < report.html.index("<b>ann</b>")
    assert report.metadata["leaderboard"][0]["model"] == "bob" and report.metadata["missing"] == 1
    assert report.data["rankings"] == "arena-ann-bob"


def test_while_votes_are_asked_for_nobody_learns_who_leads(tmp_path):
    arena = make(tmp_path)
    arena.choose(0, 1)
    html = ranking_report(arena, blind=True).html
    assert "1 ranked, 1 missing" in html and "Elo" not in html and "bob 10" not in html


def test_nbval_sees_no_votes_and_no_texts(tmp_path):
    arena = make(tmp_path)
    fresh = ranking_report(arena)
    arena.choose(0, 1)
    for report in (ranking_report(arena, blind=True), ranking_report(arena), ranking_report(make(tmp_path, "other »"))):
        assert folded(report.text) == folded(fresh.text)
        assert folded(report.html) == folded(fresh.html)
        assert report.data == fresh.data


def test_the_voting_form_asks_the_battles(tmp_path, monkeypatch):
    for name in ("rank.js", "rank.css"):
        (tmp_path / name).write_text("/* built */")
    monkeypatch.setattr("jupyter_gpt.notebook.views.widget.STATIC", tmp_path)
    monkeypatch.setattr("jupyter_gpt.notebook.views.place.is_live", lambda: True)
    forms, shown = [], []
    make_form = lambda *args: forms.append(RankForm(*args)) or forms[-1]  # noqa: E731
    monkeypatch.setattr("jupyter_gpt.notebook.views.rank_form.RankForm", make_form)
    monkeypatch.setattr("jupyter_gpt.notebook.views.place.draws_over", lambda: True)

    def display(data, raw=False, metadata=None, display_id=None):
        shown.append(data)
        return SimpleNamespace(update=lambda data, raw, metadata=None: shown.append(data))

    monkeypatch.setattr("IPython.display.display", display)
    arena = make(tmp_path)
    Page().show(arena)
    [form] = forms
    assert form.state["rows"] == 2 and "ann" not in str(form.state)
    form._handle_custom_msg({"type": "rank", "row": 0, "order": [[1], [2]], "page": "p"}, [])  # shown first: bob's
    assert arena.choices[0] == 1
    form._handle_custom_msg({"type": "undo", "page": "p"}, [])
    assert arena.choices[0] is None
    form._handle_custom_msg({"type": "rank", "row": 0, "order": [[2], [1]], "page": "p"}, [])
    form._handle_custom_msg({"type": "rank", "row": 1, "order": [[1, 2]], "page": "p"}, [])
    assert arena.choices == [0, "tie", None] and arena.missing == []
    assert "Elo" in shown[-1]["text/html"]


def test_with_nobody_there_it_is_published_once(tmp_path, monkeypatch):
    monkeypatch.setattr("jupyter_gpt.notebook.views.place.is_live", lambda: False)
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    with Page() as page:
        page.working("ann writes", 0, 3, 1)
        page.show(make(tmp_path))
    assert len(shown) == 1
