"""The static comparison and the form: what they show, what they hide, what nbval folds, and what a vote becomes."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("anywidget")

from helpers.displays import hear, present
from helpers.rendered import folded
from jupyter_gpt.inference.completion import Sampling
from jupyter_gpt.notebook.views import rank as view
from jupyter_gpt.notebook.views.rank_form import RankForm
from jupyter_gpt.report.differences import differences
from jupyter_gpt.report.report import MIME
from jupyter_gpt.stages.compare import Comparison
from jupyter_gpt.stages.ranking_task import ranking_report
from jupyter_gpt.stages.rankings import Question, Rankings

HIDDEN = "<summary>completions and rankings</summary>"  # texts wait behind a click
EVIL = "<script>alert('x')</script> »«\n\nend"


def row(prompt: str, texts: tuple[str, ...], shown=(0, 1), seed: int = 0, finish=("stop", "stop")) -> Question:
    names = ("ann", "bob")
    completions = tuple(
        {"model": name, "text": text, "seed": seed, "finish_reason": how}
        for name, text, how in zip(names, texts, finish, strict=True)
    )
    return Question(prompt, completions, shown, tuple((name, f"<|sent|> {prompt}") for name in names))


@pytest.fixture
def comparison(tmp_path):
    rows = [
        row("Once", ("a small red fox", "a small hen"), (1, 0), finish=("stop", "length")),
        row("2 + 2 =", ("4", "4")),
        row("Why?", (EVIL, "")),
    ]
    return Comparison(Rankings(tmp_path / "ann-vs-bob.jsonl"), rows, ["ann", "bob"], {"seed": 0}, anybody=True)


@pytest.mark.parametrize(
    ("texts", "marked"),
    [
        (["the red fox", "the old fox"], [["red"], ["old"]]),
        (["Paris.", "Lyon."], [["Paris"], ["Lyon"]]),
        (["one two three", "one two three"], [[], []]),
        (["a b c d", "a x c d", "a b c y"], [[], ["x"], ["y"]]),
        (["", "word"], [[], ["word"]]),
        (["same  words", "same words"], [[], []]),
        (
            ["It is not the one.", "Light is scattered by air"],
            [["It is not the one."], ["Light is scattered by air"]],
        ),
    ],
)
def test_differing_words(texts, marked):
    found = differences(texts)
    assert ["".join(text for text, _ in pieces) for pieces in found] == texts
    assert [[text for text, differs in pieces if differs] for pieces in found] == marked


def test_a_text_that_differs_nearly_throughout_is_tinted_softly(comparison):
    html = ranking_report(comparison).html
    assert '0.24);border-radius:3px">hen<' in html
    assert '0.09);border-radius:3px">&lt;script' in html


def test_long_texts_are_compared_in_a_moment():
    words = [f"w{i % 97} of the" for i in range(700)]
    one, two = " ".join(words), " ".join(reversed(words))
    assert "".join(text for text, _ in differences([one, two])[1]) == two


def test_without_votes_nothing_is_said_of_them(comparison):
    assert ranking_report(comparison).text.splitlines()[2] == (
        "«1 with identical completions · tinted: words that no other completion has · --blind asks for votes without "
        "naming the models»"
    )
    assert "0 ranked, 2 missing" in ranking_report(comparison, blind=True).text


def test_the_table_shows_all_and_marks_the_votes(comparison):
    comparison.vote(0, "bob")
    comparison.vote(2, "tie")
    report = ranking_report(comparison)
    assert report.text.splitlines()[:12] == [
        "compare ann, bob",
        "3 prompts, temperature 0.7, at most 256 tokens, seed 0",
        "«2 ranked, 0 missing; ann 0, bob 1, tie 1 · 1 with identical completions · by person 2 · tinted: words that "
        "no other completion has»",
        "",
        "«",
        "1. Once",
        "  ann  a small red fox",
        "  bob  ✓ best",
        "       a small hen …",
        "",
        "2. 2 + 2 =",
        "  ann  4",
    ]
    assert report.html.count("✓ best") == 1 and report.html.count("<b>tie</b>") == 2
    assert report.html.count('title="stopped at --max-tokens"') == 1
    assert HIDDEN not in report.html
    assert ">red fox</span>" in report.html
    assert report.data == {
        "view": "compare",
        "models": ["ann", "bob"],
        "prompts": ["2 + 2 =", "Once", "Why?"],
        "sampling": Sampling().as_dict(),
        "rankings": "ann-vs-bob",
    }
    first = report.metadata["questions"][0]
    assert first["sent"] == [["ann", "<|sent|> Once"], ["bob", "<|sent|> Once"]]
    assert [each["text"] for each in first["completions"]] == ["a small red fox", "a small hen"]
    assert first["answers"][0]["order"] == [[1], [0]] and report.metadata["tally"] == {"ann": 0, "bob": 1, "tie": 1}


def test_while_voting_nothing_tells_who_wrote_what(comparison):
    comparison.vote(0, "bob")
    html = ranking_report(comparison, blind=True).html
    assert "bob 1" not in html and "&lt;|sent|&gt; Once" in html
    outside = re.sub(r"<details>.*?</details>", "", html)
    assert "fox" not in outside and "fox" in html


def test_hostile_text_stays_text(comparison):
    html = ranking_report(comparison).html
    assert "<script" not in html and "&lt;script&gt;" in html


def test_samples_are_rows_with_their_seeds(tmp_path):
    rows = [row("Once", ("x", f"y{seed}"), seed=seed) for seed in (7, 8)]
    comparison = Comparison(Rankings(tmp_path / "r.jsonl"), rows, ["ann", "bob"], {"seed": 7, "samples": 2})
    report = ranking_report(comparison)
    assert (
        "1 prompt, temperature 0.7, at most 256 tokens, seed 7 and up" in report.text
        and "1. Once (seed 7)" in report.text
        and "seed 8" in report.html
    )


def test_nbval_sees_no_votes_no_texts_and_no_form(comparison):
    fresh = ranking_report(comparison)
    comparison.vote(0, "ann")
    half = ranking_report(comparison, blind=True)
    comparison.vote(2, "tie")
    whole = ranking_report(comparison)
    rows = [row(question.prompt, (EVIL, EVIL[1:])) for question in comparison.rows]
    other = Comparison(comparison.rankings, rows, ["ann", "bob"], {"seed": 0}, anybody=True)
    elsewhere = ranking_report(other)
    for report in (half, whole, elsewhere):
        assert folded(report.text) == folded(fresh.text)
        assert folded(report.html) == folded(fresh.html)
        assert report.data == fresh.data


def test_with_nobody_there_the_table_is_published_once(page, monkeypatch, comparison):
    present(monkeypatch, False)
    with view.Page() as page_of:
        page_of.working("ann writes", 0, 3, 0)
        page_of.show(comparison)
    report, metadata = ranking_report(comparison)._repr_mimebundle_()
    assert page.shown == [("display", report)] and page.metadata == [metadata]
    assert metadata[MIME].keys() >= {"parts", *ranking_report(comparison).metadata}


def test_a_person_sees_who_writes_then_the_table_and_the_form(page, monkeypatch, comparison):
    present(monkeypatch, True)
    with view.Page() as page_of:
        page_of.working("bob writes", 1, 3, 7)
        page_of.show(comparison)
    (_, line), (how, hidden) = page.shown
    assert line["text/plain"] == "bob writes: 1 of 3 prompts, token 7 …"
    assert how == "update" and HIDDEN in hidden["text/html"]
    form = page.forms[0]
    assert form.mark in hidden["text/html"]
    hear(form, "rank", row=0, order=[[1], [2]])
    half = page.shown[-1][1]["text/html"]
    assert "1 ranked, 1 missing" in half and HIDDEN in half
    hear(form, "rank", row=1, order=[[1, 2]])
    (_, whole) = page.shown[-1]
    assert HIDDEN not in whole["text/html"] and form.mark not in whole["text/html"]
    hear(form, "kept")
    assert form.comm is None  # closed


def test_the_form_knows_no_models_and_shows_the_shuffled_order(page, comparison):
    form = RankForm(comparison)
    assert "ann" not in str(form.state) and "bob" not in str(form.state)
    shown = ["".join(text for text, _ in pieces) for pieces in form.state["texts"]]
    assert shown == ["a small hen", "a small red fox"]
    assert (form.state["row"], form.state["rows"], form.state["ranked"]) == (0, 2, 0)


def test_a_choice_means_the_completion_that_was_shown_there(page, comparison):
    form = RankForm(comparison)
    state = hear(form, "rank", row=0, order=[[2], [1]])  # shown second: ann's
    assert comparison.votes == ["ann", None, None]
    assert (state["row"], state["ranked"], state["undo"]) == (1, 1, True)
    state = hear(form, "go", row=0)
    assert state["order"] == [[2], [1]]
    hear(form, "rank", row=0, order=[[1, 2]])
    assert comparison.votes[0] == "tie" and len(comparison.rankings) == 1
    hear(form, "undo")
    assert comparison.votes[0] == "ann", "what was replaced comes back"
    state = hear(form, "undo")
    assert comparison.votes == [None, None, None] and state["row"] == 0 and not state["undo"]


def test_an_old_click_and_nonsense_are_dropped(page, comparison):
    form = RankForm(comparison)
    hear(form, "rank", row=1, order=[[1], [2]])
    hear(form, "rank", row=0, order=[[3], [1, 2]])
    hear(form, "go", row=99)
    assert len(comparison.rankings) == 0 and form.state["row"] == 1


def test_done_ends_the_form_with_votes_missing(page, comparison):
    told = []
    form = RankForm(comparison, told.append)
    hear(form, "done")
    assert told == [True]


def test_a_vote_that_cannot_be_kept_is_told(page, comparison, monkeypatch):
    form = RankForm(comparison)
    comparison.rankings.path.write_text("{\n")
    assert "line 1" in hear(form, "rank", row=0, order=[[1], [2]])["error"]
