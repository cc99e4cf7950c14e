"""`--keep`: which checkpoints stay, and the models that they are."""

import pytest
import torch

from jupyter_gpt.errors import GPTError
from jupyter_gpt.runs import checkpoint
from jupyter_gpt.runs.retention import Retention, best_of


def kept(run):
    return checkpoint.steps(run.folder / "checkpoints")


def evaluated(step, **values):
    return {"event": "evaluation", "step": step, **values}


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(None, [6]), (0, []), ("last", [6, 12]), (1, [6, 12]), (3, [6, 8, 10, 12]), (9, [0, 2, 4, 6, 8, 10, 12])],
)
def test_what_stays_after_the_end(gpt, train, keep, expected):
    run = train(steps=12, checkpoint_every=2, **({} if keep is None else {"keep": keep}))
    assert kept(run) == expected
    assert [e["step"] for e in run.events if e["event"] == "checkpoint"][:3] == [0, 2, 4]


def test_the_best_stays_and_is_what_was_evaluated(gpt, train):
    """At this rate the model overfits: it was best long before the end."""
    run = train(steps=60, eval_every=4, keep="best", lr=0.1, held_out=0.1)
    losses = {e["step"]: e["val_loss"] for e in run.events if e["event"] == "evaluation"}
    best = min(losses, key=losses.get)
    assert best > 0 and kept(run) == sorted({30, best})
    weights = checkpoint.load(checkpoint.at(run.folder / "checkpoints", best))[0]
    model = gpt.load("tiny", step="best")
    assert model.name == f"tiny.step-{best}" and model.step == best
    for name, parameter in model.module.named_parameters():
        assert torch.equal(parameter, weights[name]) if name in weights else True
    assert gpt.load("tiny", step=best) is model


def test_a_kept_step_is_the_model_as_it_was(gpt, train):
    """Twenty steps read all of `$docs`: then both runs train on the same."""
    train("short", steps=20, decay=0.0)
    run = train("long", steps=26, decay=0.0, checkpoint_every=2, keep=4)
    model = gpt.load("long", step=20)
    for name, parameter in gpt.models["short"].module.named_parameters():
        assert torch.equal(parameter, model.module.get_parameter(name))
    answers = [
        gpt.prompt("The old", model="short", seed=1, max_tokens=8).text,
        gpt.prompt("The old", model="long.step-20", seed=1, max_tokens=8).text,
        gpt.prompt("The old", model="long", step=20, seed=1, max_tokens=8).text,
    ]
    assert len(set(answers)) == 1
    none = r"^run long has no checkpoint of step 3: those of steps 20, 22, 24, 26 are kept$"
    with pytest.raises(GPTError, match=none):
        gpt.load("long", step=3)
    with pytest.raises(
        GPTError, match=r"^--step loads a checkpoint as it was trained: leave --dtype and --device out$"
    ):
        gpt.load("long", step=20, dtype="bfloat16")
    assert kept(run) == [20, 22, 24, 26]


def test_of_a_run_made_anew_the_old_checkpoint_is_forgotten(gpt, train):
    train(steps=4)
    before = gpt.load("tiny", step=2).module.get_input_embeddings().weight.clone()
    train(steps=4, seed=1, overwrite=True)
    assert not torch.equal(before, gpt.load("tiny", step=2).module.get_input_embeddings().weight)


def test_reinforcement_learning_keeps_the_highest_reward(gpt, tiny_model):
    tiny_model(gpt, "fox")
    run = gpt.rlhf(
        "aligned",
        [f"Tale {n}. The old fox" for n in range(6)],
        policy="fox",
        algo="grpo",
        reward=lambda prompt, completion: float(completion.count("a")),
        max_tokens=6,
        prompts_per_step=2,
        samples=4,
        lora=4,
        steps=6,
        eval_every=1,
        keep="best",
    )
    rewards = {e["step"]: e["reward"] for e in run.events if e["event"] == "evaluation"}
    assert max(rewards, key=rewards.get) in kept(run) and len(kept(run)) <= 2


def test_nothing_to_compare_and_no_such_value_are_one_line(gpt, train):
    with pytest.raises(GPTError, match=r"^--keep best compares validation losses, and no data is held out"):
        train(steps=4, held_out=0.0, keep="best")
    with pytest.raises(GPTError, match=r"--keep first must be best, last or a number of checkpoints"):
        train(steps=4, keep="first")


def test_a_resumed_run_remembers_its_best():
    told = [evaluated(0, val_loss=3.0), evaluated(4, val_loss=1.0), evaluated(8, val_loss=2.0)]
    retention = Retention("best", 6, 12)
    retention.recall(told, [4, 8])
    assert retention.pinned == {4, 6} and not retention.improves(10, {"val_loss": 1.5})
    assert retention.improves(12, {"val_loss": 0.9}) and retention.pinned == {6, 12}
    assert best_of(told, [0, 8]) == 8 and best_of([evaluated(1, reward=0.5), evaluated(2, reward=2.0)], [1, 2]) == 2
    assert best_of(told, [5]) is None
