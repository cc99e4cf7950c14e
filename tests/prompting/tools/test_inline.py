"""Calls inside the text: the result is forced where it is asked for, and nowhere else."""

import pytest

from jupyter_gpt.prompting.tools.calculator import Inline


def said(script: str) -> tuple[str, int]:
    """The text when a model draws the characters of `script`, one after the other, and the rest is forced."""
    one = Inline(lambda ids: "".join(map(chr, ids)), lambda text: list(map(ord, text)))
    text, drawn = "", list(script)
    while drawn or one.forced():
        assert one.mask() is None
        for token in one.forced() or [ord(drawn.pop(0))]:
            text += chr(token)
            one.accept(token)
    return text, one.results


@pytest.mark.parametrize(
    ("script", "text", "results"),
    [
        ("<<12*12=!", "<<12*12=144>>!", 1),
        ("a=b, 3*4=", "a=b, 3*4=", 0),
        ("<<1+1= <<2+2=.", "<<1+1=2>> <<2+2=4>>.", 2),
        ("<<1/0=", "<<1/0=? ZeroDivisionError>>", 1),
        ("<<x=3", "<<x=? NameNotDefined>>3", 1),
        ("<<9**9**9=", "<<9**9**9=? ValueError>>", 1),
        ("<<a\nb=", "<<a\nb=", 0),
        ("< <3=", "< <3=", 0),
    ],
)
def test_results_stand_where_they_are_asked_for(script, text, results):
    assert said(script) == (text, results)


def test_through_the_engine_the_tokens_are_forced(gpt, tiny_model, monkeypatch):
    from jupyter_gpt.errors import GPTError
    from jupyter_gpt.prompting.tools import calculator

    tiny_model(gpt, "noise", context=128)
    monkeypatch.setattr(calculator, "CALL", calculator.re.compile(r"(?P<expression>)\Z"))  # every text asks
    monkeypatch.setattr(calculator, "calculate", lambda expression: "42")
    done = gpt.prompt("The", model="noise", calculator=True, max_tokens=30, min_tokens=30, temperature=1.0)
    assert done.text.count("42>>") >= 2
    plain = gpt.prompt("The", model="noise", max_tokens=30, min_tokens=30, temperature=1.0)
    assert "42>>" not in plain.text
    with pytest.raises(GPTError, match="leave one out"):
        gpt.prompt("The", model="noise", calculator=True, regex="a+")
    gpt.endpoint("far", "http://127.0.0.1:9/v1", "m")
    with pytest.raises(GPTError, match="use --tools"):
        gpt.prompt("The", model="far", calculator=True)
