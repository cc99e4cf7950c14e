"""The static view of conversations: counts, special tokens, and what is trained on, in text and in safe HTML."""

import re

import pytest

from jupyter_gpt.data.chat import with_template
from jupyter_gpt.data.conversation_dataset import prepare
from jupyter_gpt.data.tokenizer import train_bpe
from jupyter_gpt.notebook.views.conversations import conversations_report
from jupyter_gpt.report.report import MIME


@pytest.fixture(scope="module")
def tokenizer():
    return with_template(train_bpe(["why what it was said é <b> user and assistant. "] * 20, 320))


def made(tokenizer, folder, variables, context=64, **options):
    work = prepare(
        {f"${name}": 1.0 for name in variables}, tokenizer, folder, variables=variables, context=context, **options
    )
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


def test_text(tokenizer, tmp_path):
    data = made(tokenizer, tmp_path, {"a": [("why?", "it was"), ("what?", "no\nidea")]})
    report = conversations_report("helper", data, tokenizer)
    lines = report.text.splitlines()
    assert lines[0] == "helper: 1 source of conversations"
    assert re.match(r"\$a +pairs +2 +0 +0 +0 +\d+ +\d+ \(\d+%\) +100.0%", lines[4])
    assert "<|endoftext|><|user|>why?<|end|><|assistant|>⟦it was<|end|>⟧" in lines
    assert "⟦no⏎\nidea<|end|>⟧" in report.text
    assert any(re.fullmatch(r"item 0 of \$a: \d+ tokens, \d+ trained on", line) for line in lines)
    assert report.data["rows"][0]["trained"] == data.counts[0].trained and not report.metadata


def test_html_colours_exactly_what_is_trained(tokenizer, tmp_path):
    data = made(tokenizer, tmp_path, {"a": [("<b>why</b>?", "it « was\nno")]})
    html = conversations_report("helper", data, tokenizer).html
    assert "&lt;b&gt;why&lt;/b&gt;?" in html and "<b>why" not in html and "&laquo;" in html
    conversation = html.rpartition("<p")[2]
    green = re.findall(r"rgba\(46,160,67,0.30\)[^>]*>(.*?)</span></span>", conversation)
    assert len(green) == 1 and green[0].startswith("it &laquo; was⏎<br>no") and "&lt;|end|&gt;" in green[0]
    for banned in ("<style", "<script", "<svg", "var(", "class="):
        assert banned not in html


def test_the_first_of_each_source_then_the_second(tokenizer, tmp_path):
    data = made(tokenizer, tmp_path, {"a": [("why?", "it was")] * 5, "b": [("what?", "it was")] * 5})
    text = conversations_report("helper", data, tokenizer).text
    places = [text.index(where) for where in ("item 0 of $a", "item 0 of $b", "item 1 of $a")]
    assert places == sorted(places) and "item 1 of $b" not in text


def test_cut_and_left_out_are_said(tokenizer, tmp_path):
    chats = [("why?", "it was " * 100), {"messages": 0}][:1]
    open_ended = [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    ]
    data = made(tokenizer, tmp_path, {"a": chats, "b": open_ended})
    text = conversations_report("helper", data, tokenizer).text
    assert re.search(r"item 0 of \$a: 65 tokens, \d+ trained on, cut from 2\d\d", text)
    assert "$b: 1 end in a turn without an answer: that turn is left out" in text


def test_long_conversations_are_not_drawn_whole(tokenizer, tmp_path):
    data = made(tokenizer, tmp_path, {"a": [("why?", "it was " * 500)]}, context=2048)
    report = conversations_report("helper", data, tokenizer)
    for shown in (report.text, report.html):
        assert re.search(r"… and [\d,]+ more tokens", shown)


def test_what_varies_is_marked(tokenizer, tmp_path):
    data = made(tokenizer, tmp_path, {"a": [("why?", "it was")]})
    report = conversations_report("helper", data, tokenizer, varies=True)
    steady = re.sub(r"«[^»]*»", "", re.sub(r"≈[\d,.–]+", "", report.text))
    assert not re.search(r"\d{2,} ", steady.replace("100.0%", "")) and "it was" not in steady
    assert "it was" not in re.sub(r"<!--«-->.*?<!--»-->", "", report.html)
    assert "trained" not in report.data["rows"][0] and report.metadata["rows"][0]["trained"] == data.counts[0].trained
    assert MIME in report.mime()
