"""The doors on the real session, end to end: a corpus, a tiny model, and every verb that looks at it."""

import time

import pytest

from jupyter_gpt.errors import GPTError

TALES = [f"Tale {n}. The hen sat on {n} eggs and the fox sat by. " * 4 for n in range(1, 40)]
SHAPE = "--tokenizer char --depth 1 --width 32 --context 16 --rows 2 --batch-tokens 64"


@pytest.fixture
def run(ip, succeed, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "home"))
    ip.user_ns["tales"] = TALES
    return succeed


def test_from_a_corpus_to_a_model_and_back_on(run, shown, capsys):
    names = run(
        "%%corpus book --out c\n$tales: 1\n",
        f"%%pretrain hen {SHAPE} --corpus book --steps 4 --seed 3 --out m",
        "%gpt runs --out r",
        "%gpt models",
        '%gpt tokens hen "The hen" --out ids',
        "%gpt batch hen --rows 2 --out first",
        "%gpt batch hen --seed 5 --out drawn",
        "%gpt show hen",
    )
    assert names["c"].name == "book"
    assert names["m"].name == "hen"
    assert names["m"].resident
    assert names["m"].tokenizer.decode(names["ids"]) == "The hen"
    assert list(names["r"]) == ["hen"]
    recipe = names["r"]["hen"].recipe
    assert (recipe["steps"], recipe["seed"], recipe["layers"], recipe["width"]) == (4, 3, 1, 32)
    assert names["first"].shape == (2, 17)
    assert names["drawn"].shape == (4, 17)
    starts = (
        "book: ",
        "hen: pretrain, finished",
        "run",
        "model",
        "hen: 7 tokens",
        "hen: ",
        "hen: ",
        "hen: pretrain",
    )
    for text, start in zip(shown, starts, strict=True):
        assert text.startswith(start)
    assert "hen  pretrain  finished  4 of 4" in shown[2]
    assert "«" not in shown[4] + shown[5]  # the notebook's own text, by character: the same everywhere

    with pytest.raises(GPTError, match="at least one row of two tokens, not 0 of 10"):
        run("%gpt batch hen --rows 0")
    with pytest.raises(GPTError, match="there is nothing to resume"):
        run("%gpt resume hen")
    with pytest.raises(GPTError, match="is not running"):
        run("%gpt stop hen")


def wait_past(training, step: int) -> None:
    """Until a run in the background has taken more than `step` steps."""
    while training.step <= step:
        assert training.alive
        time.sleep(0.05)


def test_stop_and_resume_in_the_background(run, shown):
    names = run(f"%%pretrain egg {SHAPE} --steps 100_000 --background --out egg\n$tales: 1\n")
    egg = names["egg"]
    wait_past(egg, 0)
    run("%gpt stop egg --out stopped")
    reached = egg.step
    assert names["stopped"] is egg
    assert f"egg is stopped at step ≈{reached:,} of 100,000" in shown
    run("%gpt resume egg --background")
    wait_past(egg, reached)
    run("%gpt show egg", "%gpt stop egg")
    assert egg.status == "stopped"
