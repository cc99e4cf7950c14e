"""The static rankings and the form: what they show, what they hide, what nbval folds, and what an answer becomes."""

from __future__ import annotations

import pytest

pytest.importorskip("anywidget")

from helpers.displays import hear, present
from helpers.rendered import folded
from jupyter_gpt.notebook.views import rank as view
from jupyter_gpt.notebook.views.rank_form import RankForm
from jupyter_gpt.stages.ranking_task import GREEN, RankingTask, ranking_report, status_line
from jupyter_gpt.stages.rankings import Question, Rankings

FOLDED = "<summary>completions and rankings</summary>"
EVIL = "<script>alert('x')</script> »«\n\nend"


def question(prompt: str, texts: list[str], shown: tuple[int, ...], models=("ann",), **more) -> Question:
    completions = tuple(
        {"model": models[i % len(models)], "text": text, "seed": i, "times": 1} for i, text in enumerate(texts)
    )
    return Question(prompt, completions, shown, tuple((name, f"<|sent|> {prompt}") for name in models), **more)


def make(tmp_path, models=("ann",), fox=EVIL, **more) -> RankingTask:
    questions = [
        question("Tell me.", ["the fox", fox, ""], (2, 0, 1), models),
        question("Say yes.", ["Yes."], (0,), models),
        question("Why?", ["because", "therefore"], (1, 0), models),
    ]
    options = {"max_tokens": 60, "samples": 3, "seed": 2, "stop": "\n", "system": "s", "temperature": None}
    return RankingTask(Rankings(tmp_path / "taste.jsonl"), questions, models, options, **more)


@pytest.fixture
def ranked(tmp_path):
    return make(tmp_path)


def test_the_page_shows_the_order_ties_and_reasons(ranked):
    ranked.rank(0, [[1], [0, 2]], "it is evil")
    report = ranking_report(ranked)
    assert report.text.splitlines() == [
        "rankings taste",
        "3 prompts, 3 completions each of ann, temperature 0.7, at most 60 tokens, seed 2 and up",
        "«1 ranked, 1 missing · 1 with identical completions · by person 1»",
        "",
        "«",
        "1. Tell me.",
        "",
        "1   <script>alert('x')</script> ›‹",
        "",
        "    end",
        "2=  the fox",
        "2=  empty completion",
        "    person: it is evil",
        "",
        "2. Say yes.",
        "",
        "–  Yes.",
        "",
        "3. Why?",
        "",
        "–  therefore",
        "–  because",
        "   not ranked yet",
        "»",
    ]
    assert report.html.count(GREEN) == 1 and report.html.count(">2=</td>") == 2
    assert report.html.index("&lt;script") < report.html.index("the fox") and "person: it is evil" in report.html
    assert "&lt;|sent|&gt; Tell me." in report.html and FOLDED not in report.html
    assert report.data == {
        "view": "rank",
        "rankings": "taste",
        "models": ["ann"],
        "prompts": ["Say yes.", "Tell me.", "Why?"],
        "sampling": report.data["sampling"],
    }
    assert report.data["sampling"]["max_tokens"] == 60 and report.data["sampling"]["stop"] == ["\n"]
    [answer] = report.metadata["questions"][0]["answers"]
    assert (answer["by"], answer["order"], answer["reason"]) == ("person", [[1], [0, 2]], "it is evil")
    assert report.metadata["missing"] == 1


def test_hostile_text_stays_text(ranked):
    ranked.rank(0, [[0], [1], [2]], EVIL)
    html = ranking_report(ranked).html
    assert "<script" not in html and html.count("&lt;script&gt;") == 2


def test_while_somebody_ranks_it_is_folded_up_and_names_no_model(tmp_path):
    ranked = make(tmp_path, ("ann", "bob"))
    ranked.rank(2, [[0], [1]])
    blind, whole = ranking_report(ranked, blind=True).html, ranking_report(ranked).html
    assert FOLDED in blind
    rows = blind.partition(FOLDED)[2].partition("exact prompts")[0]
    assert "(bob)" not in rows.partition("Why?")[0] and "(bob)" in rows and "(bob)" in whole.partition("Why?")[0]
    assert "Kendall" not in blind


def test_labellers_and_their_agreement_are_told(tmp_path):
    for by, order in (("ann", [[0], [1], [2]]), ("bob", [[0], [1], [2]])):
        make(tmp_path, by=by).rank(0, order)
    report = ranking_report(make(tmp_path, by="bob"))
    assert "by ann 1, bob 1 · agreement on 1 prompt: Kendall's W 1.00 (1 is perfect, 0.50 is chance)" in (report.text)
    assert report.metadata["agreement"] == {"w": 1.0, "chance": 0.5, "prompts": 1}
    other = make(tmp_path, fox="another fox")
    assert "2 more of other completions in the same file" in status_line(other)


def test_what_a_judge_was_asked_is_shown(ranked):
    ranked.judged[0] = [{"sent": "<|judge|> rank", "reply": "2 > 1 »"}]
    html = ranking_report(ranked).html
    assert "&lt;|judge|&gt; rank→ 2 &gt; 1 &raquo;" in html


def test_nbval_sees_no_answers_no_texts_and_no_form(ranked, tmp_path):
    fresh = ranking_report(ranked)
    ranked.rank(0, [[1], [0, 2]], "why")
    half = ranking_report(ranked, blind=True)
    ranked.rank(2, [[1], [0]])
    ranked.notes.append("said »")
    whole = ranking_report(ranked)
    elsewhere = ranking_report(make(tmp_path, fox="other"))
    for report in (half, whole, elsewhere):
        assert folded(report.text) == folded(fresh.text)
        assert folded(report.html) == folded(fresh.html)
        assert report.data == fresh.data


def test_with_nobody_there_it_is_published_once(page, monkeypatch, ranked):
    present(monkeypatch, False)
    with view.Page() as shown:
        shown.working("ann writes", 0, 3, 7)
        shown.show(ranked)
    assert page.shown == [("display", ranking_report(ranked).mime())]


def test_a_person_sees_who_writes_then_the_answers_and_the_form(page, monkeypatch, ranked):
    present(monkeypatch, True)
    with view.Page() as shown:
        shown.working("ann writes", 1, 3, 7)
        shown.show(ranked)
    (_, line), (how, blind) = page.shown
    assert line["text/plain"] == "ann writes: 1 of 3 prompts, token 7 …"
    assert how == "update" and "0 ranked, 2 missing" in blind["text/html"] and FOLDED in blind["text/html"]
    form = page.forms[0]
    marked, whole = blind["text/html"], view.ranking_report(ranked)
    assert f'<span class="gpt-{form.mark} gpt-beside"></span>' in marked
    assert folded(marked) == folded(whole.html) and blind.keys() == whole.mime().keys(), "nbval sees the form"
    hear(form, "rank", row=0, order=[[1], [2, 3]])
    assert "1 ranked, 1 missing" in page.shown[-1][1]["text/html"]
    hear(form, "rank", row=1, order=[[1, 2]])
    (_, whole) = page.shown[-1]
    assert FOLDED not in whole["text/html"] and form.mark not in whole["text/html"]
    hear(form, "kept")
    assert form.comm is None  # closed


def test_no_form_where_none_is_wanted_or_nothing_is_missing(page, monkeypatch, ranked):
    present(monkeypatch, True)
    view.Page().show(ranked, form=False)
    ranked.rank(0, [[0, 1, 2]])
    ranked.rank(2, [[0, 1]])
    view.Page().show(ranked)
    assert [how for how, _ in page.shown] == ["display", "display"]


def test_the_form_shows_the_shuffled_order_and_no_model(page, tmp_path):
    form = RankForm(make(tmp_path, ("ann", "bob")))
    assert "ann" not in str(form.state) and "bob" not in str(form.state)
    assert form.state["texts"] == [[], [("the fox", False)], [(EVIL, False)]] and form.state["copies"] == [1, 1, 1]
    assert (form.state["row"], form.state["rows"], form.state["ranked"]) == (0, 2, 0)


def test_an_order_means_the_completions_that_were_shown_so(page, ranked):
    form = RankForm(ranked)
    state = hear(form, "rank", row=0, order=[[2], [3, 1]], reason=" why ")  # the fox; then the evil one and nothing
    assert ranked.answer(0).order == ((0,), (1, 2)) and ranked.answer(0).reason == "why"
    assert (state["row"], state["ranked"], state["undo"], state["order"]) == (1, 1, True, None)
    state = hear(form, "go", row=0)
    assert state["order"] == [[2], [1, 3]] and state["reason"] == "why"
    state = hear(form, "undo")
    assert ranked.answers[0] == {} and state["row"] == 0 and not state["undo"] and state["order"] is None


def test_every_message_is_answered_even_an_old_click(page, ranked):
    form = RankForm(ranked)
    heard = form.state["heard"]
    state = hear(form, "rank", row=1, order=[[1], [2]], id=0.5)
    assert (state["heard"], state["answers"]) == (heard + 1, 0.5) and len(ranked.rankings) == 0
    state = hear(form, "ready")
    assert (state["heard"], state["answers"]) == (heard + 2, None)
    state = hear(form, "rank", row=0, order=[[1], [2]], id=0.7)
    assert (state["heard"], state["answers"]) == (heard + 3, 0.7) and "each of the 3 completions once" in state["error"]
    state = hear(form, "go", row=99)
    assert state["row"] == 1 and state["error"] is None and len(ranked.rankings) == 0


def test_done_ends_the_form_with_answers_missing(page, ranked):
    told = []
    form = RankForm(ranked, told.append)
    hear(form, "done")
    assert told == [True]


def test_a_ranking_that_cannot_be_kept_is_told(page, ranked):
    form = RankForm(ranked)
    ranked.rankings.path.write_text("{\n")
    assert "line 1" in hear(form, "rank", row=0, order=[[1], [2], [3]])["error"]


def test_an_error_takes_the_line_back(page, monkeypatch):
    present(monkeypatch, True)
    with pytest.raises(ZeroDivisionError), view.Page() as shown:
        shown.working("ann writes", 0, 1, 0)
        raise ZeroDivisionError
    assert page.shown[-1] == ("update", {})


def test_a_ranking_that_comes_twice_is_given_once(page, ranked):
    form = RankForm(ranked)
    hear(form, "rank", row=0, order=[[1], [2], [3]], id=0.5)
    hear(form, "go", row=0, id=0.6)
    state = hear(form, "rank", row=0, order=[[1], [2], [3]], id=0.5)  # its answer was late, and it was sent again
    assert (state["row"], state["answers"], len(ranked.history)) == (0, 0.5, 1)
    ranked.rankings.path.write_text("{\n")
    assert hear(form, "rank", row=0, order=[[2], [1], [3]], id=0.7)["error"]
    ranked.rankings.path.write_text("")
    assert hear(form, "rank", row=0, order=[[2], [1], [3]], id=0.7)["error"] is None  # what was not kept is tried again
    assert len(ranked.history) == 2


def test_a_ranking_given_at_once_is_shown(page, monkeypatch, ranked):
    """Before the kernel has gone on from showing the form."""
    present(monkeypatch, True)
    watch = view.Page.watch

    def watched(self, widget, *args, **more):
        watch(self, widget, *args, **more)
        hear(widget, "done")
        return widget

    monkeypatch.setattr(view.Page, "watch", watched)
    view.Page().show(ranked)
    assert FOLDED not in page.shown[-1][1]["text/html"]
