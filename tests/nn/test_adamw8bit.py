"""AdamW with moments of 8 bits: its memory, its checkpoints, what it learns."""

import importlib.util

import pytest
import torch

from helpers.pretraining import start, train
from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn import adamw8bit, training_memory
from jupyter_gpt.runs import checkpoint

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes, 125 MB, is not installed"
)


def weights(training):
    return [p.detach().clone() for p in training.model.parameters()]


@needs_bitsandbytes
@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_it_learns_what_adamw_does(arch):
    exact, low = (train(start(arch, optimizer, steps=12)) for optimizer in ("adamw", "adamw8bit"))
    assert exact[-1] < exact[0] - 0.05
    assert max(abs(a - b) for a, b in zip(exact, low, strict=True)) < 0.05


@needs_bitsandbytes
def test_its_state_is_as_large_as_the_formula_says():
    training = start(optimizer="adamw8bit", steps=2)
    train(training)
    low = [p for group in training.optimizers.adamw.param_groups if group["bits"] == 8 for p in group["params"]]
    state = [training.optimizers.adamw.state[p] for p in low]
    assert {each["state1"].dtype for each in state} == {torch.uint8}
    held = sum(each[key].nbytes for each in state for key in ("state1", "state2", "absmax1", "absmax2"))
    count = sum(p.numel() for p in low)
    assert held == training_memory.moments("adamw8bit", count) < 8 * count / 3.9


@needs_bitsandbytes
def test_resumed_equals_uninterrupted(tmp_path):
    whole, part = (start(optimizer="adamw8bit", steps=10) for _ in range(2))
    losses, first = train(whole), train(part, until=4)
    checkpoint.save(tmp_path, part.step, *part.state())
    again = start(optimizer="adamw8bit", steps=10)
    again.load(checkpoint.latest(tmp_path))
    assert first + train(again) == losses
    assert all(torch.equal(a, b) for a, b in zip(weights(again), weights(whole), strict=True))


@needs_bitsandbytes
def test_runs_of_both_kinds_are_stopped_and_resumed(gpt, train):
    run = train(steps=12, optimizer="adamw8bit", checkpoint_every=5, width=128, heads=4)
    assert run.status == "finished"
    longer, whole = gpt.resume("tiny", steps=30), train("whole", steps=30, optimizer="adamw8bit", width=128, heads=4)
    assert longer.status == whole.status == "finished"
    rows = [{"prompt": f"How many birds saw hen {n}?", "completion": f"It saw {n}."} for n in range(20)]
    assert gpt.sft("chat", rows, "tiny", optimizer="adamw8bit", steps=3, batch_tokens=128).status == "finished"


def test_without_the_package_and_with_shard_it_is_one_line(gpt, train, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        GPTError, match=r"^--optimizer adamw8bit needs an extra: pip install 'jupyter_gpt\[bitsandbytes\]'$"
    ):
        train(optimizer="adamw8bit", steps=2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(GPTError, match=r"^--shard divides the optimizer state already"):
        adamw8bit.check("adamw8bit", shard=True)
