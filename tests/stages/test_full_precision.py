"""What is trained in full begins with the weights on disk, not with those they are rounded to in a GPU's memory."""

import math

import pytest
import torch
from safetensors.torch import load_file

from jupyter_gpt.data.tokenizer import CHAT
from jupyter_gpt.runs import checkpoint
from jupyter_gpt.stages.rankings import Ranking

ROWS = [
    {"prompt": f"How many birds saw the {who}?", "completion": f"{n} birds."}
    for n in range(8)
    for who in ("fox", "hen")
]
LABELLED = [(f"The fox saw {n} {word} birds.", word) for n in range(8) for word in ("glad", "sad")]
PROMPTS = [f"Tale {n}. The old fox" for n in range(6)]
TUNED = {"batch_tokens": 128, "context": 64, "answer_tokens": 4, "steps": 1}
SMALL = {"max_tokens": 4, "prompts_per_step": 2, "samples": 4, "steps": 1, "lora": 0}


def short(prompt, completion):
    return -float(len(completion))


STAGES = {
    "sft": lambda gpt, start: gpt.sft(
        "a", ROWS, start, **({"merge_first": True} if start == "adapter" else {}), **TUNED
    ),
    "classify": lambda gpt, start: gpt.classify("a", LABELLED, start, steps=1, batch=4),
    "reward": lambda gpt, start: gpt.reward("a", rankings="taste", base=start, lora=0, steps=1),
    "ppo": lambda gpt, start: gpt.rlhf("a", PROMPTS, policy=start, algo="ppo", reward=short, **SMALL),
    "grpo": lambda gpt, start: gpt.rlhf("a", PROMPTS, policy=start, algo="grpo", reward=short, **SMALL),
    "dpo": lambda gpt, start: gpt.rlhf("a", PROMPTS, policy=start, algo="dpo", rankings="taste", **SMALL),
    "ppo from rankings": lambda gpt, start: gpt.rlhf("a", policy=start, algo="ppo", rankings="taste", **SMALL),
}


@pytest.fixture
def rounded(gpt, tiny_model):
    """A base and an adapter on disk in fp32, in memory in bf16 as on a GPU; what should be trained, by the name of
    each.
    """
    tiny_model(gpt, "fox")
    for n, prompt in enumerate(PROMPTS):
        pair = tuple({"model": "fox", "text": f"{text} {n}", "seed": 0} for text in ("saw 3 small birds.", "xx"))
        gpt.rankings.named("taste").add(Ranking(prompt, pair, ((0,), (1,)), time=float(n)))
    gpt.sft("adapter", ROWS, "fox", lora=2, lr=0.05, **{**TUNED, "steps": 3})
    fox = load_file(gpt.models.folder("fox") / "model.safetensors")
    learned = load_file(gpt.models.folder("adapter") / "adapter_model.safetensors")
    whole = dict(fox)
    for name, a in learned.items():
        if ".lora_A.weight" in name:
            key = name.removeprefix("base_model.model.").replace(".lora_A", "")
            whole[key] = fox[key] + 2.0 * learned[name.replace("lora_A", "lora_B")] @ a  # alpha is twice the rank
        elif name.endswith(".token_adapter.trainable_tokens_delta"):
            key = name.removeprefix("base_model.model.").replace("token_adapter.trainable_tokens_delta", "weight")
            whole[key] = fox[key].index_copy(
                0, torch.tensor(gpt.models["fox"].tokenizer.convert_tokens_to_ids(list(CHAT))), a
            )
    gpt.models.load("fox", dtype="bfloat16")
    gpt.models.load("adapter", dtype="bfloat16")
    assert gpt.models["fox"].dtype == "bfloat16"
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in fox.values())
    assert any(not torch.equal(tensor, fox[name]) for name, tensor in whole.items())
    return {"fox": fox, "adapter": whole}


CASES = [(stage, start) for stage in STAGES for start in ("fox", "adapter")]
CASES.remove(("classify", "adapter"))  # refused: an adapter is merged before a classifier is made of it


@pytest.mark.parametrize(("stage", "start"), CASES)
def test_the_first_weights_are_those_on_disk(gpt, rounded, monkeypatch, stage, start):
    first, save = [], checkpoint.save

    def watched(folder, step, weights, *rest, **more):
        if step == 0:
            first.append({name: tensor.detach().clone() for name, tensor in weights.items()})
        return save(folder, step, weights, *rest, **more)

    monkeypatch.setattr(checkpoint, "save", watched)
    STAGES[stage](gpt, start)
    [begun] = first
    assert all(tensor.dtype == torch.float32 for tensor in begun.values())
    owners = {"ppo": ("policy.", "critic."), "grpo": ("policy.",), "dpo": ("policy.",), "reward": ("reward.",)}
    for owner in owners.get(stage.split()[0], ("",)):
        found = {name.removeprefix(owner): tensor for name, tensor in begun.items() if name.startswith(owner)}
        shared = found.keys() & rounded[start].keys()
        assert len(shared) >= len(rounded[start]) - 1, "all but the head of words"
        for name in shared:
            torch.testing.assert_close(found[name], rounded[start][name], rtol=0, atol=0 if start == "fox" else 1e-7)
    assert gpt.models["fox"].dtype == "bfloat16", "what waits in memory stays as it was"


def test_a_merged_model_has_the_base_as_it_is_on_disk(gpt, rounded):
    gpt.merge("adapter", "whole")
    found = load_file(gpt.models.folder("whole") / "model.safetensors")
    assert found.keys() == rounded["adapter"].keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, rounded["adapter"][name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("start", ["fox", "adapter"])
@pytest.mark.parametrize(("dtype", "lora"), [("int8", 4), ("int8", 0), ("int4", 4), ("bfloat16", 0)])
@pytest.mark.parametrize("computed", ["float32", "bfloat16"])
def test_the_reference_is_what_the_policy_starts_as(gpt, rounded, start, dtype, lora, computed):
    gpt.models.load("fox", dtype=dtype)
    given = {"algo": "dpo", "rankings": "taste", **SMALL, "lora": lora, "dtype": computed}
    events = gpt.rlhf("a", policy=start, **given).events
    assert gpt.models["fox"].dtype == dtype
    (first,) = [event["loss"] for event in events if event["event"] == "step"]
    before = next(event for event in events if event["event"] == "evaluation")
    near = 1e-6 if computed == "float32" else 1e-4  # of an adapter that is merged, its base and its part are rounded
    assert [first, before["val_loss"]] == pytest.approx([math.log(2)] * 2, abs=near)
    assert before["kl"] == pytest.approx(0, abs=near)
