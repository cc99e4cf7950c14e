"""The compiled forward of pretraining, through torch's own tracing and its graph of gradients, without a code
generator.
"""

import functools

import pytest
import torch

from helpers.pretraining import start, train


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_it_is_the_same_training(arch, checkpointing, monkeypatch):
    plain = start(arch)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    compiled = start(arch)
    compiled.compile = True
    compiled.recipe = compiled.recipe.replace(checkpointing=checkpointing)
    assert train(plain, until=3) == pytest.approx(train(compiled, until=3), abs=2e-3)
