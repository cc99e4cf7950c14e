"""The paths that a GPU takes, run without one: on torch's meta device no numbers exist, but a tensor that was made in
the wrong place, or a shape that does not fit, is an error all the same."""

import pytest
import torch

from helpers.recipes import pretraining_recipe
from jupyter_gpt.inference.forward import GraphedSteps, forward_of
from jupyter_gpt.inference.kv_cache import KVCache, gather
from jupyter_gpt.nn.loss import cross_entropy, softmax_gradient
from jupyter_gpt.nn.optimizer import optimizers
from jupyter_gpt.nn.transformer import Trunk
from jupyter_gpt.stages.pretrain_training import build

ARCHITECTURES = pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen3"])


def made(arch: str) -> tuple:
    recipe = pretraining_recipe({"none": 1.0}, arch=arch, depth=2, steps=10, dtype="bfloat16")
    with torch.device("meta"):
        return recipe, build(recipe, recipe.vocab_size, 0)


@ARCHITECTURES
def test_a_step_of_training_stays_on_its_device(arch):
    recipe, model = made(arch)
    trunk = Trunk(model, recipe.context, torch.bfloat16)
    ids = torch.zeros(4, recipe.context, dtype=torch.long, device="meta")
    hidden = trunk(ids)
    assert hidden.shape == (4, recipe.context, recipe.width) and hidden.dtype == torch.bfloat16
    cross_entropy(hidden, model.get_output_embeddings().weight, ids, softmax_gradient).backward()
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())
    optimizers(model, recipe).muon.step(1.0)  # the fused AdamW knows no meta device


@ARCHITECTURES
def test_reading_and_recordable_steps_stay_on_their_device(arch):
    _, model = made(arch)
    model = model.to(torch.bfloat16).eval()
    rows, forward = KVCache(4, 256, torch.device("meta")), forward_of(model)
    steps = GraphedSteps(forward.forward)
    read = forward(torch.zeros(4, 16, dtype=torch.long, device="meta"), *rows.append([16] * 4, 16), rows, 1)
    ids = torch.zeros(4, 1, dtype=torch.long, device="meta")
    positions, mask = rows.append([1] * 4, 1)
    step = steps(ids, positions, mask, rows)
    assert read.shape == step.shape == (4, 1, model.config.vocab_size)
    assert read.is_meta and step.is_meta and step.dtype == torch.float32


@ARCHITECTURES
def test_rows_that_are_padded_multiplied_dropped_and_outgrow_their_memory(arch):
    _, model = made(arch)
    model, meta = model.to(torch.bfloat16).eval(), torch.device("meta")
    forward, rows = forward_of(model), KVCache(3, 16, meta)
    forward(torch.zeros(3, 16, dtype=torch.long, device="meta"), *rows.append([16, 9, 4], 16), rows, 1)
    many, steps = gather([(rows, [0, 0, 0, 2]), (rows, [1])], 4), GraphedSteps(forward.forward)
    many.drop(1)
    ids = torch.zeros(4, 1, dtype=torch.long, device="meta")
    for _ in range(60):
        step = steps(ids, *many.append([1] * 4, 1), many)
        assert step.is_meta and step.shape == (4, 1, model.config.vocab_size)
    assert many.layers[0].keys.shape[2] > 64 and steps.home is many.layers[0].keys
    forced = forward(torch.zeros(4, 3, dtype=torch.long, device="meta"), *many.append([3, 1, 2, 1], 3), many, 3)
    assert forced.is_meta and forced.shape == (4, 3, model.config.vocab_size)
