"""State-space, hybrid and other architectures of no forward of ours, through the stages: what is kept is what was
reported.
"""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers.architectures import tiny
from helpers.errors import fail
from jupyter_gpt.data.conversation_dataset import Conversations
from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.rankings import Ranking

ROWS = [
    {"prompt": f"How many {what} saw the {who}?", "completion": f"{n} {what}."}
    for n in range(1, 7)
    for what in ("birds", "foxes", "hens")
    for who in ("old fox", "red hen")
]
SHORT = {"batch_tokens": 128, "context": 64, "steps": 4, "answer_tokens": 4, "sample_every": 100}
ODD = {
    "mamba": {},
    "mamba2": {},
    "falcon_h1": {},
    "llama4_text": {},
    "gpt_bigcode": {},
    "gemma3n_text": {},
    "granite": {},
    "rwkv": {"num_hidden_layers": 7},
    "recurrent_gemma": {},
    "jetmoe": {},
}


def based(gpt, tiny_model, kind, **more):
    """A random model of that kind in the store, with the tokenizer of the tests."""
    tokenizer = tiny_model(gpt, "of").tokenizer
    sizes = {"vocab_size": len(tokenizer)}
    if kind == "gemma3n_text":
        sizes["vocab_size_per_layer_input"] = len(tokenizer)
    gpt.models.keep("base", tiny(kind, **sizes, **more), tokenizer, "pretrain", None, ["base (pretrain)"], 0)
    gpt.models.unload("base")
    return gpt.models["base"]


def held_out_loss(module, run):
    """Nats per trained token of the run's held-out conversations, by the model's own forward."""
    conversations, nats = Conversations.open(run.folder / "data"), []
    for place in np.flatnonzero(conversations.held_out):
        ids, learned = conversations[int(place)]
        ids, learned = torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(learned)[1:]
        with torch.no_grad():
            logits = module(input_ids=ids[None, :-1], use_cache=False).logits[0].float()
        nats.append(cross_entropy(logits[learned], ids[1:][learned], reduction="none"))
    return float(torch.cat(nats).mean())


@pytest.mark.parametrize("lora", [None, 4])
@pytest.mark.parametrize("kind", ODD)
def test_a_finetuned_model_has_the_loss_that_was_reported(kind, lora, gpt, tiny_model):
    from transformers import AutoModelForCausalLM

    base = based(gpt, tiny_model, kind, **ODD[kind])
    before = {name: p.detach().clone() for name, p in base.module.named_parameters()}
    run = gpt.sft("reply", ROWS, "base", lora=lora, **SHORT)
    assert run.status == "finished", run.message
    told = [event["val_loss"] for event in run.events if event["event"] == "evaluation"]
    assert told[0] == pytest.approx(held_out_loss(base.module, run), rel=1e-4)
    assert all(torch.equal(before[name], p) for name, p in base.module.named_parameters()), "the base is as it was"
    if lora:
        model = gpt.merge("reply", "whole").folder
    else:
        model = gpt.models["reply"].folder
    saved = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    assert told[-1] != pytest.approx(told[0], rel=1e-3)
    assert told[-1] == pytest.approx(held_out_loss(saved, run), rel=1e-4)
    assert gpt.prompt("How many hens saw the red hen?", model="reply", max_tokens=3, temperature=0.0).tokens


def test_preferences_are_learned_by_the_model_s_own_logits(gpt, tiny_model):
    based(gpt, tiny_model, "granite")
    for n in range(8):
        texts = tuple({"model": "base", "text": f"{text} {n}", "seed": 0} for text in ("saw 3 birds.", "xx"))
        gpt.rankings.named("taste").add(Ranking(f"Tale {n}.", texts, ((0,), (1,)), time=float(n)))
    run = gpt.rlhf("better", policy="base", algo="dpo", rankings="taste", lora=4, steps=2, max_tokens=4)
    losses = [event["val_loss"] for event in run.events if event["event"] == "evaluation"]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-5), "policy and reference agree before the first step"
    assert run.status == "finished" and losses[-1] != losses[0]
    with pytest.raises(GPTError, match=r"^transformers has no classifier for granite models: choose another base$"):
        gpt.reward("judge", rankings="taste", base="base", lora=4, steps=2)


@pytest.mark.parametrize(
    "kind, options, why",
    [
        ("xlnet", {}, "xlnet models cannot be trained here: a token sees those that come after it"),
        (
            "mamba",
            {"lora": 2, "lora_targets": ["out_proj"]},
            r"out_proj, which LoRA does not adapt: there are in_proj, x_proj",
        ),
        ("jetmoe", {"checkpointing": True}, "jetmoe models cannot recompute activations: leave --checkpointing out"),
    ],
)
def test_what_cannot_be_done_is_one_line(kind, options, why, gpt, tiny_model):
    based(gpt, tiny_model, kind)
    with pytest.raises(GPTError, match=why) as error:
        gpt.sft("reply", ROWS, "base", **SHORT, **options)
    assert "\n" not in str(error.value)


DAMAGED = [
    ("config.json", {"num_attention_heads": 0}),
    ("config.json", {"vocab_size": -1}),
    ("tokenizer_config.json", {"model_max_length": "x"}),
    ("tokenizer_config.json", {"tokenizer_class": 7}),
    ("tokenizer_config.json", {"extra_special_tokens": 4}),
]


@pytest.mark.parametrize(("name", "change"), DAMAGED)
def test_settings_that_no_model_has_are_one_line(gpt, tiny_model, name, change):
    path = tiny_model(gpt, "fox").folder / name
    gpt.models.resident.clear()
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert "fox" in fail(gpt.prompt, "a", model="fox", max_tokens=2)


@pytest.mark.parametrize(
    "template", ["{{ 'a' * 10**20 }}", "{{ 1 / 0 }}", "{{ range(10**20) | list }}", "{{ '%c' % 10**11 }}"]
)
def test_templates_that_fail_are_one_line(gpt, tiny_model, template):
    tiny_model(gpt, "fox", chat=True).tokenizer.chat_template = template
    assert "the chat template refuses this conversation" in fail(gpt.prompt, "a", model="fox", max_tokens=2)


def test_half_a_character_is_one_line(gpt, tiny_model):
    tiny_model(gpt, "fox")
    for call in (
        lambda: gpt.tokens("fox", "a \ud83d b"),
        lambda: gpt.save("fox", "\ud83d"),
        lambda: gpt.save("fox", gguf="\ud83d.gguf"),
    ):
        assert "U+D83D" in fail(call)
