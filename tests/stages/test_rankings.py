"""Rankings on disk: each is there when `add` returns, a torn line harms nothing, and a vote finds its comparison."""

from types import SimpleNamespace

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.compare import Comparison, compare, shortened
from jupyter_gpt.stages.rank import shuffled
from jupyter_gpt.stages.rankings import AllRankings, Question, Ranking, Rankings

THREE = ({"model": "a", "text": "A"}, {"model": "b", "text": "B"}, {"model": "c", "text": "C\n«é»"})


def ranking(prompt="p", order=((1,), (0, 2)), completions=THREE) -> Ranking:
    return Ranking(prompt, completions, order, (2, 0, 1), time=5.0)


@pytest.fixture
def rankings(tmp_path):
    return Rankings(tmp_path / "rankings" / "mine.jsonl")


def test_a_ranking_comes_back_as_it_was(rankings):
    assert list(rankings) == []
    rankings.add(ranking())
    rankings.add(ranking("q", ((0, 1, 2),)))
    assert Rankings(rankings.path).read() == [ranking(), ranking("q", ((0, 1, 2),))]
    assert len(rankings.path.read_text(encoding="utf-8").splitlines()) == len(rankings) == 2


@pytest.mark.parametrize(
    ("order", "pairs"),
    [
        (((1,), (0, 2)), [(1, 0), (1, 2)]),
        (((0, 1, 2),), []),
        (((2,), (0,), (1,)), [(2, 0), (2, 1), (0, 1)]),
    ],
)
def test_pairs_of_better_and_worse(order, pairs):
    assert ranking(order=order).pairs == pairs


def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next(rankings):
    rankings.add(ranking())
    with rankings.path.open("a") as file:
        file.write('{"prompt": "to')
    assert rankings.read() == [ranking()]
    rankings.add(ranking("q"))
    assert rankings.read() == [ranking(), ranking("q")]


def test_a_last_line_without_its_newline_is_kept(rankings):
    rankings.add(ranking())
    rankings.path.write_text(rankings.path.read_text().rstrip("\n"))
    rankings.add(ranking("q"))
    assert rankings.read() == [ranking(), ranking("q")]


@pytest.mark.parametrize("bad", ["{", "[]", '{"prompt": "p", "completions": [], "order": [[0]], "time": 1}'])
def test_a_damaged_line_is_told(rankings, bad):
    rankings.path.parent.mkdir()
    rankings.path.write_text(bad + "\n")
    with pytest.raises(GPTError, match=r"line 1 .* is damaged"):
        rankings.read()


def test_withdraw_takes_only_its_own(rankings):
    for prompt in "pqp":
        rankings.add(ranking(prompt))
    assert rankings.withdraw(ranking("p").key)
    assert rankings.read() == [ranking("q")]
    assert not rankings.withdraw(ranking("p").key)


def test_all_rankings_by_name(gpt):
    found = AllRankings()
    assert list(found) == []
    found.named("mine").add(ranking())
    assert list(found) == ["mine"] and found["mine"].read() == [ranking()]
    with pytest.raises(GPTError, match=r"no rankings mien \(did you mean mine\?\)"):
        found["mien"]
    with pytest.raises(GPTError, match="cannot be a name"):
        found.named("../mine")


def written(text: str):
    return SimpleNamespace(text=text, finish_reason="stop")


class Known(dict):
    def __missing__(self, name):
        raise GPTError(f"there is no model {name}")


class FakeGPT:
    """Models that write their name, the prompt and the seed; what was asked is in `asked`."""

    def __init__(self, gpt):
        self.rankings, self.asked = gpt.rankings, []
        self.models = Known(a=1, b=2, c=3)
        self.word = ""

    def prompts(self, texts, *, model, samples, seed, **options):
        on_token = options.pop("on_token", None)
        self.asked.append((model, seed, options))
        if on_token:
            on_token(SimpleNamespace(tokens=[1, 2, 3]))
        return [
            SimpleNamespace(
                prompt=f"<{text}>", samples=[written(f"{model} {text} {seed + k}{self.word}") for k in range(samples)]
            )
            for text in texts
        ]


@pytest.fixture
def fake(gpt):
    return FakeGPT(gpt)


def test_every_model_gets_the_same_prompts_and_seeds(fake):
    told = []
    found = compare(fake, ["a", "b"], ["x", "y"], samples=2, seed=5, tick=lambda *what: told.append(what), top_k=3)
    assert fake.asked == [("a", 5, {"top_k": 3}), ("b", 5, {"top_k": 3})]
    assert told == [("a writes", 0, 2, 3), ("b writes", 0, 2, 3)]
    assert found.options == {"top_k": 3, "seed": 5, "samples": 2}
    assert list(found.table.columns) == ["prompt", "seed", "a", "b", "vote"]
    assert found.table[["prompt", "seed", "b"]].to_numpy().tolist() == [
        ["x", 5, "b x 5"],
        ["x", 6, "b x 6"],
        ["y", 5, "b y 5"],
        ["y", 6, "b y 6"],
    ]


def test_votes_are_on_disk_at_once_and_found_again(fake):
    found = compare(fake, ["a", "b", "c"], ["x", "y"])
    found.vote(0, "b")
    [kept] = fake.rankings["a-vs-b-vs-c"]
    assert (kept.prompt, kept.order, kept.by) == ("x", ((1,), (0, 2)), "person")
    assert kept.shown == found.rows[0].shown and kept.time > 1e9
    found.vote(1, "tie")
    assert fake.rankings["a-vs-b-vs-c"][1].order == ((0, 1, 2),)
    again = compare(fake, ["a", "b", "c"], ["x", "y"])
    assert again.votes == ["b", "tie"] and again.missing == []
    assert again.tally == {"a": 0, "b": 1, "c": 0, "tie": 1}
    assert again.table["vote"].tolist() == ["b", "tie"]


def test_other_texts_begin_anew_and_the_old_votes_stay(fake):
    compare(fake, ["a", "b"], ["x"]).vote(0, "b")
    fake.word = "!"
    other = compare(fake, ["a", "b"], ["x"])
    assert other.votes == [None] and other.missing == [0]
    other.vote(0, "a")
    assert [kept.order[0] for kept in fake.rankings["a-vs-b"]] == [(1,), (0,)]


def test_a_second_vote_replaces_the_first_and_undo_takes_back_the_last(fake):
    found = compare(fake, ["a", "b"], ["x", "y"])
    for row, best in ((0, "a"), (1, "b"), (0, "tie")):
        found.vote(row, best)
    assert found.votes == ["tie", "b"] and len(fake.rankings["a-vs-b"]) == 2
    assert found.undo() == 0 and found.votes == ["a", "b"], "what was replaced comes back"
    assert found.undo() == 1 and found.undo() == 0 and found.undo() is None
    assert found.votes == [None, None]


def test_rows_with_the_same_text_want_no_vote(gpt):
    same = tuple({"model": name, "text": "same", "seed": 0} for name in ("a", "b"))
    found = Comparison(gpt.rankings.named("n"), [Question("x", same, (0, 1))], ["a", "b"])
    assert found.missing == [] and found.votes == [None]


@pytest.mark.parametrize(
    ("models", "prompts", "message"),
    [
        (["a"], ["x"], "two models or more"),
        (["a", "a"], ["x"], "model a is given twice"),
        (["a", "z"], ["x"], "there is no model z"),
        (["a", "b"], [], "one prompt a line"),
        (["a", "b"], ["x", "y", "x"], "prompt 'x' is given twice"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_a_word_is_written(fake, models, prompts, message):
    with pytest.raises(GPTError, match=message):
        compare(fake, models, prompts)
    assert fake.asked == []


def test_what_was_interrupted_is_not_compared(fake, monkeypatch):
    cut = SimpleNamespace(text="cut sh", interrupted=True)
    monkeypatch.setattr(fake, "prompts", lambda texts, **_: fake.asked.append(1) or [SimpleNamespace(samples=[cut])])
    with pytest.raises(KeyboardInterrupt):
        compare(fake, ["a", "b"], ["x"])
    assert len(fake.asked) == 1


def test_a_vote_for_nobody_is_refused(fake):
    found = compare(fake, ["a", "b"], ["x"])
    with pytest.raises(GPTError, match="a vote is for a, b or tie, not 'c'"):
        found.vote(0, "c")
    with pytest.raises(GPTError, match="there is no question 1"):
        found.vote(1, "a")


def test_the_order_shown_depends_on_the_seed_alone():
    orders = {shuffled(2, str(seed)) for seed in range(20)}
    assert orders == {(0, 1), (1, 0)}
    assert shuffled(5, "x") == shuffled(5, "x")


def test_long_names_are_shortened_but_differ():
    one, two = (shortened("m" * 40 + "-vs-" + "n" * count) for count in (40, 41))
    assert one != two and len(one) == len(two) == 64
