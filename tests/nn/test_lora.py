"""Twins and adapters: the base is shared and never changed, and what peft writes is peft's own."""

import pytest
import torch

from helpers.recipes import pretraining_recipe
from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.heads import head_names, with_head
from jupyter_gpt.nn.lora import (
    clone_adapter,
    copied,
    linear_layers,
    lora,
    merged,
    plain_base,
    trained,
    with_shared_weights,
)
from jupyter_gpt.stages.pretrain_training import build

IDS = torch.arange(24).view(2, 12)


def tiny(arch="llama", seed=0):
    recipe = pretraining_recipe({"x": 1}, depth=2, width=32, heads=2, context=32, arch=arch, seed=seed)
    model = build(recipe, 96, 0).eval().requires_grad_(False)
    with torch.no_grad():  # the blocks of a fresh model write nothing into the stream: then no adapter would matter
        for name, p in model.named_parameters():
            if name.split(".")[-2] in ("o_proj", "down_proj", "c_proj"):
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model


def moved(model):
    """Every trainable number shifted, as training would."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in trained(model):
            p.add_(torch.randn(p.shape, generator=generator) * 0.05)
    return model


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_a_rank_above_the_width_is_refused():
    with pytest.raises(GPTError, match="--lora 100000 is more than the width"):
        lora(tiny(), 100_000)


@pytest.mark.parametrize("arch", ["llama", "qwen3", "gpt2"])
def test_a_twin_shares_every_tensor_and_an_adapter_leaves_the_base_as_it_was(arch):
    base = tiny(arch)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    names = [name for name, _ in base.named_modules()]
    other = with_shared_weights(base)
    assert all(a is b for a, b in zip(base.parameters(), other.parameters(), strict=True))
    assert other.lm_head is not base.lm_head and other.config is not base.config
    first, second = lora(base, 2, seed=1), lora(base, 4, seed=2)
    assert torch.equal(logits(first), logits(base)), "B is zero: training starts from the base"
    moved(first)
    assert not torch.allclose(logits(first), logits(base), atol=1e-3)
    assert torch.equal(logits(second), logits(base)), "one adapter does not touch another"
    assert [name for name, _ in base.named_modules()] == names
    assert all(torch.equal(before[name], tensor) for name, tensor in base.state_dict().items())
    owned = {p.data_ptr() for p in base.parameters()}
    assert {p.data_ptr() for p in first.parameters() if not p.requires_grad} == owned


def test_merging_makes_the_same_model_in_tensors_of_its_own():
    base = tiny()
    model = moved(lora(base, 4, rslora=True))
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    whole = merged(model)
    assert type(whole) is type(base)
    assert torch.allclose(logits(whole), logits(model), atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in base.state_dict().items())
    assert not {p.data_ptr() for p in whole.parameters()} & {p.data_ptr() for p in base.parameters()}


def test_a_second_adapter_goes_on_from_the_first():
    base = tiny()
    first = moved(lora(base, 4))
    second = clone_adapter(first)
    assert torch.equal(logits(second), logits(first))
    kept = logits(first)
    moved(second)
    assert torch.equal(logits(first), kept) and not torch.equal(logits(second), kept)
    assert torch.equal(logits(plain_base(first)), logits(base))
    assert not torch.equal(logits(first), logits(base)), "asking for the base takes the adapter from nobody"


def test_the_initial_adapter_is_a_function_of_the_seed_and_leaves_the_random_stream_alone():
    base = tiny()
    torch.manual_seed(3)
    first = torch.rand(1)
    torch.manual_seed(3)
    a, b, c = lora(base, 4, seed=7), lora(base, 4, seed=7), lora(base, 4, seed=8)
    assert torch.equal(torch.rand(1), first)
    assert all(torch.equal(p, q) for p, q in zip(trained(a), trained(b), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(trained(a), trained(c), strict=True))


def test_targets_that_match_nothing_list_what_there_is():
    base = tiny()
    for wrong in ("q_prok", ["v_proj", "q_prok"], r"nothing\..*"):
        with pytest.raises(GPTError, match=r"matches no layer.*there are .*q_proj, k_proj, v_proj"):
            lora(base, 2, targets=wrong)
    for named in ("lm_head", ["q_proj", "embed_tokens"], "norm", ["layers.0.mlp"], ".*norm"):
        with pytest.raises(GPTError, match=r"matches \S+, which LoRA does not adapt: there are q_proj, "):
            lora(base, 2, targets=named)
    with pytest.raises(GPTError, match="no regular expression"):
        lora(base, 2, targets="(q_proj")
    with pytest.raises(GPTError, match="at least 1"):
        lora(base, 0)
    assert "lm_head" not in linear_layers(base) and "transformer.h.1.attn.c_attn" in linear_layers(tiny("gpt2"))
    only = lora(base, 2, targets=["layers.1.self_attn.q_proj"])
    assert {n.split(".lora_")[0][-27:] for n, p in only.named_parameters() if p.requires_grad} == {
        "el.layers.1.self_attn.q_proj"[-27:]
    }
    some = lora(base, 2, targets=r".*\.0\..*(gate|up)_proj")
    assert len(trained(some)) == 4 == len(trained(lora(base, 2, targets=[r".*\.0\..*(gate|up)_proj"])))


def test_a_copy_for_full_finetuning_is_a_copy():
    base = tiny().bfloat16()
    model = copied(base)
    assert model.dtype == torch.float32 and base.dtype == torch.bfloat16
    assert len(trained(model)) == len(list(model.parameters()))
    with pytest.raises(GPTError, match="nothing of this model is trainable"):
        trained(base)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_a_head_reads_the_last_token_of_the_trunk(arch, tmp_path):
    base = tiny(arch)
    model = with_head(base, ["good", "bad", "odd"], pad=95, seed=1)
    assert model.config.id2label == {0: "good", 1: "bad", 2: "odd"} and head_names(model) == ["score"]
    with torch.no_grad():
        hidden = base.base_model(input_ids=IDS).last_hidden_state[:, -1]
        assert torch.allclose(model(input_ids=IDS).logits, hidden @ model.score.weight.T, atol=1e-6)
    shared = {p.data_ptr() for p in base.parameters()}
    assert {n for n, p in model.named_parameters() if p.data_ptr() not in shared} == {"score.weight"}
    adapted = lora(model, 2, task="SEQ_CLS")
    assert any("score" in n for n, p in adapted.named_parameters() if p.requires_grad)
    moved(adapted)
    adapted.save_pretrained(tmp_path)

    from peft import PeftModel

    loaded = PeftModel.from_pretrained(with_head(base, ["good", "bad", "odd"], pad=95, seed=2), tmp_path).eval()
    assert torch.equal(logits(loaded), logits(adapted.eval()))
