"""Runs of rlhf and reward that are resumed: refused where what they learn from has changed since, in one line that
names it.
"""

import pytest
import torch

from helpers.stopping import stopped_at
from jupyter_gpt.errors import GPTError
from jupyter_gpt.session import Session
from jupyter_gpt.stages.rankings import Ranking

PROMPTS = [f"Tale {n}. The old fox" for n in range(6)]
SMALL = {
    "prompts": PROMPTS,
    "max_tokens": 4,
    "prompts_per_step": 2,
    "samples": 4,
    "steps": 24,
    "eval_every": 24,
    "lora": 2,
}


def short(prompt, completion):
    return -float(len(completion))


def ranked(gpt, n=0, text="saw 3 small birds."):
    pair = tuple({"model": "fox", "text": each, "seed": 0, "finish_reason": "stop"} for each in (f"{text} {n}", "xx"))
    gpt.rankings.named("taste").add(Ranking(PROMPTS[n], pair, ((0,), (1,)), time=float(n)))


def change(gpt, name):
    """Make the model anew, with other weights."""
    model = gpt.models[name]
    with torch.no_grad():
        for key, parameter in model.module.named_parameters():
            if not model.base or "lora_" in key:
                parameter.add_(0.01)
    gpt.models.keep(
        name, model.module, model.tokenizer, model.kind, None, model.lineage, 0, base=model.base, labels=model.labels
    )


RUNS = {
    "reward": lambda gpt, **how: gpt.reward("a", rankings="taste", base="fox", steps=40, lora=2, **how),
    "ppo": lambda gpt, **how: gpt.rlhf("a", policy="fox", algo="ppo", reward=["$short", "judge"], **SMALL, **how),
    "grpo of an adapter": lambda gpt, **how: gpt.rlhf("a", policy="more", algo="grpo", reward="$short", **SMALL, **how),
    "dpo": lambda gpt, **how: gpt.rlhf("a", policy="fox", algo="dpo", rankings="taste", **SMALL, **how),
    "ppo from rankings": lambda gpt, **how: gpt.rlhf("a", policy="fox", algo="ppo", rankings="taste", **SMALL, **how),
}


@pytest.fixture
def stopped(gpt, tiny_model):
    """`stopped(run)`: one of RUNS, stopped on its way; then a session as a new kernel would have it."""
    tiny_model(gpt, "fox")
    for n in range(6):
        ranked(gpt, n)

    def go(run):
        if run == "ppo":
            gpt.reward("judge", rankings="taste", base="fox", steps=1, lora=2)
        if "adapter" in run:
            gpt.rlhf("more", policy="fox", algo="grpo", reward=short, **{**SMALL, "steps": 1})
        found = stopped_at(2, RUNS[run], gpt, variables={"short": short})
        assert found.status == "stopped"
        return Session()

    return go


@pytest.mark.parametrize(
    ("run", "changed", "message"),
    [
        ("reward", "fox", "model fox: changed"),
        ("reward", "taste", "rankings taste: changed"),
        ("ppo", "fox", "model fox: changed"),
        ("ppo", "judge", "model judge: changed"),
        ("grpo of an adapter", "more", "model more: changed"),
        ("dpo", "fox", "model fox: changed"),
        ("dpo", "taste", "rankings taste: changed"),
        ("ppo from rankings", "a-reward", "model a-reward: changed"),
    ],
)
def test_what_has_changed_is_named(stopped, run, changed, message):
    later = stopped(run)
    reached = later.runs["a"].step
    ranked(later, 0, "another text") if changed == "taste" else change(later, changed)
    with pytest.raises(GPTError, match=f"^{message} since a began, so it cannot be resumed; run its cell again$"):
        later.resume("a", variables={"short": short})
    assert later.runs["a"].step == reached


def test_rankings_that_are_not_read_any_more_may_change(stopped):
    """PPO from rankings made its reward model from them at the beginning: ranking may go on."""
    later = stopped("ppo from rankings")
    ranked(later, 0, "another text")
    assert later.resume("a").status == "finished"
