"""No stage touches torch's global generator: it belongs to the user, whose own numbers come from it."""

import pytest
import torch

from jupyter_gpt.stages.rankings import Ranking

ROWS = [
    {"prompt": f"How many birds saw the {who}?", "completion": f"{n} birds."}
    for n in range(8)
    for who in ("fox", "hen")
]
LABELLED = [(f"The fox saw {n} {word} birds.", word) for n in range(8) for word in ("glad", "sad")]
PROMPTS = [f"Tale {n}. The old fox" for n in range(6)]
TUNED = {"batch_tokens": 128, "context": 64, "answer_tokens": 4}
SMALL = {"policy": "fox", "max_tokens": 4, "prompts_per_step": 2, "samples": 4, "steps": 1, "lora": 2}


def short(prompt, completion):
    return -float(len(completion))


STAGES = {
    "lora with dropout": lambda gpt: gpt.sft("a", ROWS, "fox", lora=2, lora_dropout=0.5, steps=2, **TUNED),
    "sft by minutes": lambda gpt: gpt.sft("a", ROWS, "fox", minutes=0.005, **TUNED),
    "classify with lora": lambda gpt: gpt.classify("a", LABELLED, "fox", lora=2, steps=1, batch=4),
    "classify from scratch": lambda gpt: gpt.classify("a", LABELLED, "fox", from_scratch=True, steps=1, batch=4),
    "pretrain by minutes": lambda gpt: gpt.pretrain(
        "a",
        {"stories": 1},
        depth=1,
        width=32,
        heads=2,
        context=32,
        vocab_size=300,
        batch_tokens=128,
        rows=2,
        minutes=0.005,
    ),
    "reward": lambda gpt: gpt.reward("a", rankings="taste", lora=2, steps=1),
    "ppo": lambda gpt: gpt.rlhf("a", PROMPTS, algo="ppo", reward=short, **SMALL),
    "ppo on copies": lambda gpt: gpt.rlhf("a", PROMPTS, algo="ppo", reward=short, **{**SMALL, "lora": 0}),
    "dpo": lambda gpt: gpt.rlhf("a", PROMPTS, algo="dpo", rankings="taste", **SMALL),
}


@pytest.mark.parametrize("stage", STAGES)
def test_the_users_generator_stays_where_it_was(gpt, tiny_model, stage):
    tiny_model(gpt, "fox")
    for n, prompt in enumerate(PROMPTS):
        pair = tuple({"model": "fox", "text": f"{text} {n}", "seed": 0} for text in ("saw 3 small birds.", "xx"))
        gpt.rankings.named("taste").add(Ranking(prompt, pair, ((0,), (1,)), time=float(n)))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    STAGES[stage](gpt)
    assert torch.equal(torch.get_rng_state(), before)
