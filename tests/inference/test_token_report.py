"""A completion's tokens: their colours tell probability, the work is reported as measured, hostile text stays text."""

from __future__ import annotations

import math

import pytest

from helpers.rendered import folded
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.inference.token_report import spoken, token_report

WORDS = {0: " Once", 1: " <b>", 2: "»", 3: "\n", 4: "<|endoftext|>"}


class Words:
    """A tokenizer with five tokens."""

    def convert_ids_to_tokens(self, token):
        return {5: "▁low"}.get(token, WORDS.get(token))

    def decode(self, ids, **_):
        return "".join(WORDS[i] for i in ids)


def completion(tokens=(0, 1, 2, 3, 4), **more) -> Completion:
    facts = {
        "tokens": list(tokens),
        "logprobs": [math.log(p) for p in (0.9, 0.004, 0.25, 0.5, 1.0)][: len(tokens)],
        "top": [((0, math.log(0.9)), (1, math.log(0.05)))] * len(tokens),
        "prompt_tokens": 12,
        "seconds_per_token": [0.5, 0.01, 0.012, 0.011, 0.013][: len(tokens)],
        "model": "tale",
        "finish_reason": "stop",
    }
    return Completion(" Once <b>»\n", **{**facts, **more})


def test_text_says_all_of_it():
    lines = token_report(completion(), Words(), 64).text.splitlines()
    assert lines[0] == "tale: ≈5 tokens, median probability ≈0.50"
    assert lines[1].startswith("time per token: median ≈12.0 ms, 90% within ≈10.0 to ≈13.0 ms; correlation")
    assert lines[2].startswith("context: ≈12 prompt tokens, ≈5 sampled, ≈47 of 64 left «[")
    assert lines[3:6] == ["each token and its alternatives", "", "«"]
    assert lines[6].split() == ["token", "id", "probability", "most", "likely", "ms"]
    assert lines[8].split() == ["1", "·Once", "0", "90.0%", "·Once", "90.0%", "·<b>", "5.0%", "500.0"]
    assert lines[10].split()[1] == "›", "a guillemet of the text would end the mark"
    assert lines[-1] == "»"


def test_html_shows_each_token_with_its_alternatives_and_no_markup_of_the_model():
    html = token_report(completion(), Words(), 64).html
    assert "<b>»" not in html and "&lt;b&gt;" in html and "&raquo;" in html
    assert 'title="·&lt;b&gt;  0.40%\nmost likely:\n90.0%  ·Once\n5.0%  ·&lt;b&gt;"' in html
    assert html.count("data:image/png;base64,") == 1
    assert html.count("<details>") == 1 and "⏎<br>" in html


def test_nbval_sees_no_tokens_and_no_clock():
    one = token_report(completion(), Words(), 64)
    two = token_report(completion((2, 2, 0), prompt_tokens=7, seconds_per_token=[0.2, 0.3, 0.1]), Words(), 64)
    assert one.text != two.text and one.html != two.html
    assert folded(one.text) == folded(two.text)
    assert folded(one.html) == folded(two.html)
    assert one.data == two.data == {"view": "completion tokens", "model": "tale", "context": 64}


def test_an_endpoint_that_tells_texts_without_times():
    report = token_report(
        completion(("Hi", " you"), top=[(("Hi", -0.1), ("Yo", -2.3)), ()], seconds_per_token=[], prompt_tokens=3)
    )
    assert "time per token" not in report.text and "<img" not in report.html
    assert report.text.splitlines()[1] == "context: ≈3 prompt tokens, ≈2 sampled"
    assert "Yo 10.0%" in report.text and "id" not in report.text.splitlines()[5]


def test_no_tokens_is_one_line():
    with pytest.raises(GPTError, match="tale told no tokens"):
        token_report(completion(()), Words())


def test_sentencepiece_keeps_its_space():
    assert spoken(completion((5,)), Words())[0].text == " low"


def test_long_completions_say_how_much_is_left_out():
    long = completion([0] * 1200, logprobs=[-0.1] * 1200, top=[], seconds_per_token=[0.01] * 1200)
    report = token_report(long, Words(), 2048)
    assert "… and 900 more tokens" in report.text and "… and 200 more tokens" in report.html
    assert len(report.metadata["tokens"]) == 1200
