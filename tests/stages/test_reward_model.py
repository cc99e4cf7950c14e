"""Reward models from the session: what they learn, score and refuse."""

import math

import pytest

from helpers.rl_runs import PROMPTS, SMALL, bytes_of, rank
from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.rankings import Ranking


@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_see_each_ranking_so_often(gpt, tiny, monkeypatch, epochs):
    from jupyter_gpt.stages.reward import RewardTraining

    rank(gpt, count=11)
    seen, loss = [], RewardTraining.loss
    monkeypatch.setattr(RewardTraining, "loss", lambda self, inputs: seen.extend(inputs) or loss(self, inputs))
    run = gpt.reward("judge", rankings="taste", epochs=epochs, batch=4, lora=4)
    start = next(e for e in run.events if e["event"] == "start")
    counts = [seen.count(ranking) for ranking in {id(ranking): ranking for ranking in seen}.values()]
    assert len(counts) == start["rankings"] and min(counts) == epochs
    assert sum(counts) < epochs * start["rankings"] + 4


def test_a_reward_model_learns_the_rankings_and_scores(gpt, tiny):
    before = bytes_of(gpt, "tiny")
    rank(gpt)
    run = gpt.reward("judge", rankings="taste", steps=30, lr=3e-3, lora=4)
    assert run.status == "finished" and bytes_of(gpt, "tiny") == before
    last = [e for e in run.events if e["event"] == "evaluation"][-1]
    assert last["accuracy"] == 1.0 and last["low"] < 1.0
    assert [e for e in run.events if e["event"] == "table"][-1]["rows"]
    assert list(run.history.columns)[:2] == ["step", "loss"] and run.history["accuracy"].iloc[-1] == 1.0
    judge = gpt.models["judge"]
    assert judge.lineage == ["tiny (pretrain)", "judge (reward)"] and judge.base == "tiny"
    better, worse = judge.score(PROMPTS[0], "saw 3 small birds. 7"), judge.score(PROMPTS[0], "xx xx 7")
    assert better > worse
    gpt.models.resident.pop(judge.folder)
    assert gpt.models["judge"].score(PROMPTS[0], "xx xx 7") == pytest.approx(worse, abs=1e-5)
    with pytest.raises(GPTError, match="is not a reward model"):
        gpt.models["tiny"].score("a", "b")
    with pytest.raises(GPTError, match=r"judge is a reward model and has no labels: .score\(prompt, completion\)"):
        judge.classify(["a"])


def test_a_reward_model_with_another_tokenizer_reads_the_text(gpt, tiny, tiny_model):
    rank(gpt)
    tiny_model(gpt, "other", chat=True, seed=5)
    gpt.reward("judge", rankings="taste", base="other", steps=4, lora=4)
    run = gpt.rlhf("a", PROMPTS, policy="tiny", algo="grpo", reward="judge", **SMALL)
    assert run.status == "finished" and math.isfinite(run.history["reward"].iloc[-1])


@pytest.mark.parametrize(
    ("given", "message"),
    [({"lr": 1e39}, "stopped being a number"), ({"base": None, "rankings": "others"}, "do not say whose")],
)
def test_a_reward_model_that_cannot_be_made_is_one_line(gpt, tiny, given, message):
    rank(gpt)
    for n in range(6):
        pair = tuple({"model": "", "text": text, "seed": 0} for text in ("a b", "c"))
        gpt.rankings.named("others").add(Ranking(PROMPTS[n], pair, ((0,), (1,)), time=float(n)))
    with pytest.raises(GPTError, match=message) as error:
        gpt.reward("judge", **{"rankings": "taste", "base": "tiny", "steps": 3, "lora": 4, **given})
    assert "\n" not in str(error.value)


def test_however_much_is_held_out_something_is_learned_from(gpt, tiny):
    rank(gpt)
    start = gpt.reward("judge", rankings="taste", steps=1, lora=4, held_out=0.99).events
    assert next(e for e in start if e["event"] == "start")["rankings"] == 1


def test_a_file_cut_off_in_the_middle_of_a_line_keeps_the_rest_and_says_so(gpt, tiny):
    rank(gpt)
    path = gpt.rankings["taste"].path
    path.write_bytes(path.read_bytes()[:-20])
    run = gpt.reward("judge", rankings="taste", steps=2, lora=4)
    assert any("cut off in the middle" in e["text"] for e in run.events if e["event"] == "note")
    assert run.status == "finished"


@pytest.mark.parametrize("learn", ["reward", "dpo"])
def test_rankings_that_contradict_are_told_and_learned_from_unless_all_do(gpt, tiny, learn):
    def go(name):
        if learn == "reward":
            return gpt.reward(name, rankings="taste", steps=2, lora=4)
        return gpt.rlhf(name, policy="tiny", algo="dpo", rankings="taste", **SMALL)

    rank(gpt)
    rank(gpt, count=3, order=((1,), (0,)))
    notes = [e["text"] for e in go("a").events if e["event"] == "note"]
    assert "rankings taste: 3 of the 12 pairs of completions" in notes[0] and "both ways" in notes[0]
    rank(gpt, order=((1,), (0,)))
    with pytest.raises(GPTError, match=r"all 12 pairs .* are ranked both ways, so there is nothing to learn"):
        go("b")


def test_rankings_of_one_completion_teach_nothing(gpt, tiny):
    rank(gpt, "same", texts=("twice", "twice"))
    with pytest.raises(GPTError, match=r"0 are there \(12 more are all ties\)"):
        gpt.reward("judge", rankings="same")
    rank(gpt, count=6, order=((0,),), texts=("alone",))
    with pytest.raises(GPTError, match="0 are there"):
        gpt.reward("judge", rankings="taste")
