"""A completion's static report, and the display that grows into it."""

import json

import pytest

from helpers.rendered import Tags, folded
from jupyter_gpt.inference.completion import Completion, Sampling, Usage
from jupyter_gpt.inference.completion_report import completion_report, last_report, prompt_report
from jupyter_gpt.notebook.views.place import Writing
from jupyter_gpt.report.report import MIME

EVIL = "<script>alert(1)</script> <b>bold</b> & «quoted»\n  two"
KEPT = {"div", "span", "p", "br", "details", "summary", "table", "thead", "tbody", "tr", "td", "th", "b"}


def made(text=EVIL, prompt="<|endoftext|>Once <i>upon</i>", seconds=1.5, **more):
    facts = {
        "tokens": [1, 2],
        "logprobs": [-0.5, -1.5],
        "top": [(), ()],
        "prompt_tokens": 4,
        "model": "m",
        "finish_reason": "stop",
        "form": "base model, continuing the document",
        "usage": Usage(4, 2, seconds),
    }
    return Completion(text, prompt=prompt, **{**facts, **more})


@pytest.mark.parametrize("report_of", [completion_report, prompt_report, last_report])
@pytest.mark.parametrize("samples", [1, 3])
def test_html_in_an_answer_or_a_prompt_is_text(report_of, samples):
    done = made()
    done.samples = [done, *(made() for _ in range(samples - 1))]
    tags = Tags(report_of(done).html)
    assert tags.seen <= KEPT
    assert "<i>upon</i>" in tags.text.replace("\xa0", " ") or samples > 1
    if report_of is not prompt_report:
        assert "<script>alert(1)</script> <b>bold</b> & «quoted»" in tags.text


@pytest.mark.parametrize("report_of", [completion_report, last_report])
def test_what_differs_between_machines_is_marked_and_not_in_the_json(report_of):
    one = report_of(made("a b", seconds=1.0))
    other = report_of(
        made(
            "longer\n\ntext», with more",
            tokens=[1] * 9,
            logprobs=[-0.1] * 9,
            finish_reason="length",
            usage=Usage(4, 9, 1234.5),
        )
    )
    assert one.text != other.text
    assert folded(one.text) == folded(other.text)
    assert folded(one.html) == folded(other.html)
    assert one.data == other.data
    assert json.loads(json.dumps(other.metadata))["samples"][0]["text"] == "longer\n\ntext», with more"


def test_the_bundle_tells_how_it_was_asked_and_drawn():
    done = made("Yes", sampling=Sampling(temperature=0, top_k=5, max_tokens=9, seed=3), notes=("a note",))
    assert completion_report(done).text == (
        "<|endoftext|>Once <i>upon</i>«Yes»\n\n"
        "m · base model, continuing the document · greedy, top-k 5, at most 9 tokens, seed 3\n"
        "≈4 tokens in, ≈2 out · ≈1.5 s, ≈1.3 tokens/s · «finished»\n"
        "a note"
    )
    html = Tags(completion_report(done).html).text
    assert html.startswith("<|endoftext|>Once <i>upon</i>Yes")
    assert "exact prompt" in html
    done.finish_reason = "length"
    assert "«stopped at --max-tokens 9»" in completion_report(done).text
    done.interrupted = True
    assert "«interrupted»" in completion_report(done).text


def test_a_chat_does_not_repeat_its_question_before_the_answer():
    done = made("Yes", prompt="<|user|>Hi<|end|>", form="assistant, asked through its chat template")
    assert Tags(completion_report(done).html).text.startswith("Yes")


def test_an_earlier_answer_in_the_prompt_is_marked():
    assert "«<|endoftext|>Once" in last_report(made(history=True)).text
    assert "«<|endoftext|>Once" not in last_report(made()).text
    assert "«<|endoftext|>Once" in prompt_report(made(history=True)).text


def test_the_last_completion_in_full():
    text = last_report(made("Yes", prompt="<|user|>Hi\n<|end|>")).text
    assert text.startswith(
        "exact prompt, special tokens included\n\n<|user|>Hi\n<|end|>\n\nanswer\n\n«Yes»\n\n  model  "
    )
    for line in (
        "tokens in        ≈4",
        "tokens out       ≈2",
        "seconds          ≈1.50",
        "tokens/s         ≈1.3",
    ):
        assert line in text
    assert "cost" not in text
    assert "cost             unpriced" in last_report(made(remote=True)).text
    assert "cost             ≈0.000200 $" in last_report(made(remote=True, usage=Usage(4, 2, 1, 0.0002))).text


def test_a_dry_run_says_so():
    text = prompt_report(made("", finish_reason=None)).text
    assert "exact prompt, ≈4 tokens; nothing was sent\n\n<|endoftext|>Once <i>upon</i>" in text


def test_alternatives_are_listed(tiny_model, tmp_path, monkeypatch):
    done = made(
        "ab",
        tokens=["a", "b"],
        top=[(("a", -0.5), ("<", -1.0)), (("b", -0.1),)],
        remote=True,
        sampling=Sampling(logprobs=2),
    )
    html = Tags(completion_report(done).html)
    assert "each token and its alternatives" in html.text
    assert "60.7%" in html.text
    assert "<" in html.text
    assert "log-probability ≈-1.000 nats per token" in completion_report(done).text


@pytest.fixture
def published(monkeypatch):
    """What is displayed and updated, as (what, mime)."""
    seen = []

    class Handle:
        def update(self, mime, **more):
            seen.append(("update", mime))

    def display(mime, display_id=None, **more):
        seen.append(("display", mime))
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    return seen


def test_with_nobody_there_only_the_end_is_published(published):
    with Writing() as writing:
        writing.show(made("So", finish_reason=None))
        writing.put(completion_report(made("So it is.")))
    assert [what for what, _ in published] == ["display"]
    assert "«So it is.»" in published[0][1]["text/plain"]


def test_live_it_grows_and_the_bundle_takes_its_place(published, monkeypatch):
    monkeypatch.setattr("jupyter_gpt.notebook.views.place.is_live", lambda: True)
    with Writing() as writing:
        writing.show(made("So", finish_reason=None))
        writing.show(made("So <b>", finish_reason=None))
        writing.put(completion_report(made("So <b>it</b> is.")))
    assert [what for what, _ in published] == ["display", "update", "update"]
    assert "So &lt;b&gt;" in published[1][1]["text/html"]
    assert "▌" in published[1][1]["text/html"]
    assert "▌" not in published[2][1]["text/html"]
    assert set(published[2][1]) == {"text/plain", "text/html", MIME}


def test_an_error_keeps_what_came_and_takes_an_empty_display_back(published, monkeypatch):
    monkeypatch.setattr("jupyter_gpt.notebook.views.place.is_live", lambda: True)
    with pytest.raises(ZeroDivisionError), Writing() as writing:
        writing.show(made("So", finish_reason=None))
        raise ZeroDivisionError
    assert "«So»" in published[-1][1]["text/plain"]
    with pytest.raises(ZeroDivisionError), Writing() as writing:
        writing.show(made("", tokens=[], finish_reason=None))
        raise ZeroDivisionError
    assert published[-1] == ("update", {})


def test_very_many_samples_stay_light_while_they_are_written(published, monkeypatch):
    monkeypatch.setattr("jupyter_gpt.notebook.views.place.is_live", lambda: True)
    done = made("word " * 2000, finish_reason=None)
    done.samples = [done] * 200
    with Writing() as writing:
        for _ in range(5):
            writing.show(done)
        assert len(published) == 1  # heavy: at most once a second
        assert "and 192 more" in published[0][1]["text/html"]
        writing.put(completion_report(done))
    assert published[-1][1]["text/html"].count("word ") == 200 * 2000
