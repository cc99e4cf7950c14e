"""Text told piece by piece: nothing of a stop text, no half characters, no space that belongs to the form."""

import random

import pytest

from jupyter_gpt.data.render import Prompt
from jupyter_gpt.inference.sampling import Request, Token
from jupyter_gpt.server.responses import Choice, partial_stop


@pytest.fixture(scope="module")
def tokenizer():
    from jupyter_gpt.data.tokenizer import train_bpe

    return train_bpe(["The fox said nothing. END of it."] * 20, 280)


def say(tokenizer, text, *, stop=(), trim=False, finish="length", min_tokens=0, logprobs=False):
    """A choice that was told `text` token by token; returns it, and the pieces that came out."""
    ids = tokenizer(text)["input_ids"]
    request = Request((0,), stop_ids=frozenset([tokenizer.eos_token_id]), min_tokens=min_tokens)
    choice = Choice(tokenizer, Prompt((0,), "", "", trim=trim), request, stop, logprobs)
    if finish == "stop":
        ids.append(tokenizer.eos_token_id)
    ends = [None] * (len(ids) - 1) + [finish]
    tokens = [Token(0, 0, id, -1.0, (), 0.0, end) for id, end in zip(ids, ends, strict=True)]
    return choice, [choice.add(token) for token in tokens]


def told(pieces) -> str:
    return "".join(piece.text for piece in pieces)


def test_whole_characters_and_the_end_token_is_no_text(tokenizer):
    choice, pieces = say(tokenizer, "Grüße 🦊!", finish="stop")
    assert told(pieces) == "Grüße 🦊!"
    assert not any("�" in piece.text for piece in pieces)
    assert (choice.finish, pieces[-1].finish) == ("stop", "stop")


def test_a_stop_text_is_never_told_in_part(tokenizer):
    text = "The fox said: ENEND of it. END"
    choice, pieces = say(tokenizer, text, stop=["END", "zebra"], logprobs=True)
    assert told(pieces) == "The fox said: EN"
    assert choice.finish == "stop"
    assert [piece.finish for piece in pieces].count("stop") == 1
    assert "".join(t.text for piece in pieces for t in piece.tokens).startswith("The fox said:")
    assert told(say(tokenizer, "It was EN", stop=["END"])[1]) == "It was EN"  # held back, then the end came


def test_no_stop_text_before_min_tokens(tokenizer):
    assert told(say(tokenizer, "END one END", stop=["END"], min_tokens=5)[1]) == "END one "


def test_the_space_around_an_answer_is_the_forms(tokenizer):
    assert told(say(tokenizer, "  The fox \n\n said. \n", trim=True)[1]) == "The fox \n\n said."
    assert told(say(tokenizer, " \n ", trim=True)[1]) == ""


def test_partial_stop():
    assert [partial_stop(text, ["END", "ND!"]) for text in ("x", "xE", "xEN", "N", "")] == [0, 1, 2, 1, 0]


def test_any_text_and_any_stops_agree_with_a_plain_search(tokenizer):
    draw = random.Random(0)
    for _ in range(200):
        text = "".join(draw.choice("ab ") for _ in range(draw.randrange(1, 30)))
        stops = ["".join(draw.choice("ab ") for _ in range(draw.randrange(2, 5))) for _ in range(2)]
        cut = min([at for stop in stops if (at := text.find(stop)) >= 0], default=len(text))
        choice, pieces = say(tokenizer, text, stop=stops)
        assert told(pieces) == text[:cut]
        assert choice.finish == ("stop" if cut < len(text) else "length")
