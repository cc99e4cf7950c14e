"""The two optimisers of a run: who steps what, what a checkpoint holds, and the same numbers again."""

from types import SimpleNamespace

import pytest
import torch

from helpers.architectures import tiny
from helpers.pretraining import start, train
from jupyter_gpt.nn.lora import copied
from jupyter_gpt.nn.optimizer import finetuning_optimizers, muon_blocks
from jupyter_gpt.runs import checkpoint

ARCHITECTURES = ("llama", "qwen3", "gpt2")


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_parameter_has_one_optimizer_and_moves(arch, optimizer):
    training = start(arch, optimizer)
    own = training.optimizers
    stepped = [p for group in own.adamw.param_groups for p in group["params"]]
    stepped += [p for group in own.muon.groups.values() for p in group] if own.muon else []
    assert len(stepped) == len({id(p) for p in stepped}) == len(list(training.model.parameters()))
    before = {n: p.detach().clone() for n, p in training.model.named_parameters()}
    train(training, until=4)
    still = [n for n, p in training.model.named_parameters() if torch.equal(p, before[n])]
    assert not [n for n in still if not n.endswith(("k_proj.bias",))]


def test_muon_has_the_matrices_between_the_tables_and_cuts_heads():
    training = start()
    own, model = training.optimizers, training.model
    shapes = {shape: sum(p.numel() for p in group) for shape, group in own.muon.groups.items()}
    assert shapes == {(16, 64): 2 * 4 * 64 * 64, (64, 64): 2 * 3 * 64 * 192}
    q = model.model.layers[0].self_attn.q_proj.weight
    o = model.model.layers[0].self_attn.o_proj.weight
    assert torch.equal(own.muon.view(q, q)[1], q[16:32]) and torch.equal(own.muon.view(o, o)[1], o[:, 16:32].mT)
    assert own.names[model.lm_head.weight] == "lm_head.weight"
    other = start("gpt2")
    block, blocks = other.model.transformer.h[0], muon_blocks(other.model, other.recipe)
    assert blocks[id(block.attn.c_attn.weight)] == (1, 12) and blocks[id(block.mlp.c_proj.weight)] == (0, 4)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_state_goes_through_a_checkpoint_bit_for_bit(optimizer, tmp_path):
    whole = start(optimizer=optimizer)
    losses = train(whole)
    first, second = start(optimizer=optimizer), start(optimizer=optimizer, seed=5)
    before = train(first, until=3)
    second.recipe = first.recipe
    second.load(checkpoint.save(tmp_path, first.step, *first.state()))
    assert before + train(second) == losses
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_bits(dtype):
    one, other = start(dtype=dtype), start(dtype=dtype)
    assert train(one) == train(other)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))
    assert train(start(dtype=dtype, seed=1)) != train(start(dtype=dtype))


def test_accumulated_micro_batches_are_the_whole_batch():
    whole, parts = start(rows=8), start(rows=2)
    assert parts.recipe.accumulation == 4
    assert train(whole) == pytest.approx(train(parts), abs=2e-4)


@pytest.mark.parametrize("kind", ["mixtral", "mamba", "gpt_bigcode", "gemma3n_text", "bart"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_weight_of_other_architectures_is_stepped(kind, optimizer):
    model = copied(tiny(kind))
    recipe = SimpleNamespace(
        optimizer=optimizer, lr=0.01, momentum=0.95, weight_decay=0.0, beta1=0.9, beta2=0.95, eps=1e-8
    )
    optimizers = finetuning_optimizers(model, recipe)
    if optimizer == "muon" and kind == "mixtral":
        assert any(p.ndim == 3 for group in optimizers.muon.groups.values() for p in group), "experts are matrices"
    model(input_ids=torch.arange(12)[None] + 5, use_cache=False).logits.square().sum().backward()
    before = {name: (p.detach().clone(), p.grad) for name, p in model.named_parameters()}
    assert (kind == "bart") == any(gradient is None for _, gradient in before.values()), "it looks at no encoder"
    optimizers.step(1.0)
    for name, p in model.named_parameters():
        old, gradient = before[name]
        if gradient is None or gradient.abs().max() > 1e-4:  # less is rounding: the bias of keys cancels in the softmax
            assert torch.equal(old, p) == (gradient is None), name
        assert torch.isfinite(p).all()
