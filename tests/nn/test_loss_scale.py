"""Training in float16, with a loss scale: its gradients, what is left out, what a checkpoint has of it."""

import pytest
import torch

from helpers.pretraining import start, train
from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn import loss_scale
from jupyter_gpt.nn.loss import cross_entropy
from jupyter_gpt.nn.loss_scale import FIRST, LossScale
from jupyter_gpt.nn.optimizer import orthogonalise
from jupyter_gpt.runs import checkpoint


def weights(training):
    return [p.detach().clone() for p in training.model.parameters()]


def equal(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def take(training, until):
    """The values of the steps up to `until`."""
    return [event.values for event in training.loop() if type(event).__name__ == "Step" and event.step <= until]


def test_a_loss_over_many_tokens_keeps_its_gradients():
    """A token's share of the gradient, here 1e-5 of one and less, has no place in float16 until it is scaled."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(4096, 8), torch.randn(64, 8) / 8
    targets = torch.randint(0, 64, (4096,))
    found = []
    for dtype in (torch.float32, torch.float16):
        h, w = hidden.to(dtype, copy=True).requires_grad_(), weight.clone().requires_grad_()
        (cross_entropy(h, w, targets) * FIRST).backward()
        found.append((h.grad.float() / FIRST, w.grad / FIRST))
    for exact, low in zip(*found, strict=True):
        assert (low - exact).norm() < 2e-3 * exact.norm()


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_it_learns_what_float32_does(arch, optimizer):
    exact, low = (train(start(arch, optimizer, steps=12, dtype=dtype)) for dtype in ("float32", "float16"))
    assert exact[-1] < exact[0] - 0.05
    assert max(abs(a - b) for a, b in zip(exact, low, strict=True)) < 0.02


def test_gradients_are_clipped_after_they_are_unscaled():
    norms = [
        [float(values["grad_norm"]) for values in take(start(steps=3, dtype=dtype), 3)]
        for dtype in ("float32", "float16")
    ]
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


def test_a_step_whose_gradient_overflows_is_left_out(monkeypatch):
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**40)
    training = start(steps=40, dtype="float16")
    before, skipped = weights(training), 0
    for event in training.loop():
        if type(event).__name__ == "Step":
            if event.values["grad_norm"] is not None:
                break
            skipped += 1
            assert equal(weights(training), before) and not training.optimizers.adamw.state
            assert training.loss_scale.scale == 2.0 ** (40 - skipped)
    assert 5 < skipped < 30 and not equal(weights(training), before)
    assert training.loss_scale.state() == [2.0 ** (40 - skipped), 1]


def test_after_many_good_steps_the_scale_doubles(monkeypatch):
    monkeypatch.setattr(loss_scale, "GROWTH", 3)
    training = start(steps=7, dtype="float16")
    assert len(take(training, 7)) == 7 and training.loss_scale.state() == [FIRST * 4, 1]


def test_one_infinite_gradient_leaves_out_the_step_of_all():
    scale, one, two = LossScale(), torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    scale.scaled((one + two).sum()).backward()
    one.grad[0] = torch.inf
    scale.unscale([one, two])
    scale.unscale([one, two])  # once a step
    assert scale.skips and scale.scale == FIRST / 2 and not two.grad.any() and not one.grad.any()
    scale.scaled(two.sum()).backward()
    scale.unscale([two])
    assert not scale.skips and two.grad.tolist() == [1.0, 1.0]


def test_a_rank_without_a_micro_batch_unscales_what_the_others_have_summed():
    training = start(steps=2, dtype="float16")

    class Sum:
        def finish(self):
            for parameter in training.model.parameters():
                parameter.grad = torch.full_like(parameter, 3 * FIRST)

    training.gradients = Sum()
    training.summed(torch.zeros(()))
    assert all((parameter.grad == 3).all() for parameter in training.model.parameters())
    assert training.loss_scale.state() == [FIRST, 1]


def test_where_no_scale_is_small_enough_it_ends_in_one_line():
    scale, weight = LossScale(), torch.ones(1, requires_grad=True)
    with pytest.raises(GPTError, match=r"not finite in float16, at any loss scale: use --dtype float32"):
        for _ in range(40):
            scale.scaled(weight.sum() * torch.inf).backward()
            scale.unscale([weight])


def test_resumed_equals_uninterrupted_also_where_steps_were_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**34)
    monkeypatch.setattr(loss_scale, "GROWTH", 4)
    whole = start(steps=40, dtype="float16")
    losses = train(whole)
    part = start(steps=40, dtype="float16")
    first = train(part, until=23)
    checkpoint.save(tmp_path, part.step, *part.state())
    again = start(steps=40, dtype="float16")
    again.load(checkpoint.latest(tmp_path))
    assert again.loss_scale.state() == part.loss_scale.state() != [2.0**34, 0]
    assert first + train(again) == losses and equal(weights(again), weights(whole))


def test_a_run_in_float16_from_the_cell_to_the_model(gpt, train):
    run = train(steps=8, dtype="float16", optimizer="adamw")
    assert run.status == "finished" and run.history["grad_norm"].notna().all()
    assert gpt.models["tiny"].dtype == "float32"


def test_muon_orthogonalises_small_momentum_in_float16():
    torch.manual_seed(0)
    matrices = torch.randn(2, 32, 48) * 1e-8
    exact, low = orthogonalise(matrices, torch.float32), orthogonalise(matrices, torch.float16)
    assert (low.float() - exact).norm() < 0.02 * exact.norm()
    assert not orthogonalise(torch.zeros(1, 8, 8), torch.float16).isnan().any()
