"""The arena: every two on every prompt, votes on disk, a leaderboard."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.arena import PROMPTS, arena
from jupyter_gpt.stages.rankings import AllRankings


class Known(dict):
    def __missing__(self, name):
        raise GPTError(f"there is no model {name}")


class FakeGPT:
    """Models that write their name and the prompt; `same` prompts get the same words from all."""

    def __init__(self):
        self.rankings, self.asked, self.same = AllRankings(), [], ()
        self.models = Known({name: self.model(name) for name in ("a", "bb", "ccc", "judge")})

    def model(self, name):
        return SimpleNamespace(name=name, kind="endpoint", base_url="here", model=name, has_chat=True, lineage=[name])

    def prompts(self, texts, *, model, samples=1, **options):
        options.pop("on_token", None)
        self.asked.append((model, list(texts), options))
        written = [
            SimpleNamespace(
                text="same" if t in self.same else f"{model} on {t}",
                interrupted=False,
                finish_reason="stop",
                prompt="<p>",
            )
            for t in texts
        ]
        for each in written:
            each.samples = [each]
        return written


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path))
    return FakeGPT()


def names(found, i: int) -> list[str]:
    return [each["model"] for each in found.questions[i].completions]


def test_every_two_meet_on_every_prompt_in_an_order_that_the_seed_shuffles(fake):
    found = arena(fake, ["a", "bb", "ccc"], ["x", "y"], top_k=5)
    assert [asked[:2] for asked in fake.asked] == [(name, ["x", "y"]) for name in ("a", "bb", "ccc")]
    assert fake.asked[0][2] == {"top_k": 5, "seed": 0}
    met = [(found.rows[i].prompt, *names(found, i)) for i in range(6)]
    assert sorted(met) == sorted((p, *pair) for p in "xy" for pair in (("a", "bb"), ("a", "ccc"), ("bb", "ccc")))
    assert met != sorted(met) and found.missing == list(range(6))
    again = arena(FakeGPT(), ["a", "bb", "ccc"], ["x", "y"], top_k=5)
    assert [(again.rows[i].prompt, *names(again, i)) for i in range(6)] == met, "another order in another kernel"
    assert {row.shown for row in found.rows} == {(0, 1), (1, 0)}


def test_a_vote_is_on_disk_at_once_and_the_same_line_goes_on(fake, tmp_path):
    found = arena(fake, ["a", "bb"], ["x", "y"])
    found.choose(0, 1)
    [kept] = [json.loads(line) for line in (tmp_path / "rankings" / "arena-a-bb.jsonl").read_text().splitlines()]
    assert kept["order"] == [[1], [0]] and kept["by"] == "person" and len(kept["completions"]) == 2
    fake.asked.clear()
    again = arena(fake, ["a", "bb"], ["x", "y"])
    assert fake.asked == [] and again.missing == [1] and again.choices == [1, None]
    again.choose(1, None)
    assert again.choices == [1, "tie"] and again.undo() == 1 and again.missing == [1]


def test_the_leaderboard_counts_every_vote(fake):
    fake.same = ("z",)
    found = arena(fake, ["a", "bb", "ccc"], ["x", "y", "z"])
    assert len(found.missing) == 6, "nobody is asked about the same words"
    for i in found.missing:
        pair = names(found, i)
        found.choose(i, None if pair == ["a", "bb"] else pair.index(max(pair, key=len)))
    board = found.leaderboard
    assert [(s.rank, s.model, s.about) for s in board] == [(1, "ccc", "ccc"), (2, "a", "a"), (2, "bb", "bb")]
    assert [(s.rating.wins, s.rating.ties, s.rating.losses) for s in board] == [(4, 2, 0), (0, 4, 2), (0, 4, 2)]
    assert board[0].rating.elo > 1000 > board[1].rating.elo
    assert list(found.table.columns) == ["rank", "model", "elo", "low", "high", "games", "wins", "ties", "losses"]
    assert found.tally["ccc"] == f"{board[0].rating.elo:.0f}"


def test_a_judge_votes_and_another_labellers_votes_count_too(fake):
    first = arena(fake, ["a", "bb"], ["x", "y"])
    for i in range(2):
        first.choose(i, names(first, i).index("a"))
    found = arena(fake, ["a", "bb"], ["x", "y"], judge=lambda prompt, text: len(text))
    assert found.missing == [] and len(found.games) == 4 and found.labellers == {"person": 2, "judge": 2}
    assert [s.rating.elo for s in found.leaderboard] == pytest.approx([1000, 1000])
    assert found.agreement.w == 0


def test_prompts_of_our_own_where_there_are_none(fake):
    found = arena(fake, ["a", "bb"])
    assert {row.prompt for row in found.rows} == set(PROMPTS)


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (["a"], {}, "two models or more: %gpt arena MODEL MODEL"),
        (["a", "a"], {}, "model a is given twice"),
        (["a", "z"], {}, "there is no model z"),
        (["a", "judge"], {"judge": "judge"}, "judge cannot judge itself"),
        (["a", "bb"], {"name": "../x"}, "cannot be a name"),
    ],
)
def test_what_cannot_be_is_refused_before_a_word_is_written(fake, models, options, message):
    with pytest.raises(GPTError, match=message):
        arena(fake, models, ["x"], **options)
    assert fake.asked == []
