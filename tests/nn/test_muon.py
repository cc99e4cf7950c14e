"""Muon against a singular-value decomposition, and its constants against the algorithm they come from."""

import numpy as np
import pytest
import torch

from jupyter_gpt.nn.optimizer import POLAR_EXPRESS, Muon, orthogonalise


def spread(shape, low, seed=0):
    """Random matrices whose singular values run from `low` to 1, evenly in the logarithm."""
    g = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(*shape, generator=g, dtype=torch.float64), full_matrices=False)
    s = torch.logspace(np.log10(low), 0, shape[-2], dtype=torch.float64)
    return (u * s) @ v, u @ v


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 44), (1, 64, 256)])
def test_the_update_is_the_polar_factor_to_a_quarter_or_so(shape):
    matrices, polar = spread(shape, 0.02)
    ours = orthogonalise(7.0 * matrices, torch.float64)
    values = torch.linalg.svdvals(ours)
    assert values.min() > 0.7 and values.max() < 1.3
    # the singular vectors are those of the input: in their basis nothing is off the diagonal
    cosine = (ours * polar).sum((-2, -1)) / (ours.norm(dim=(-2, -1)) * polar.norm(dim=(-2, -1)))
    assert cosine.min() > 0.97
    assert torch.allclose(ours @ polar.mT, (ours @ polar.mT).mT, atol=1e-10)


def test_bf16_stays_close_and_scale_does_not_matter():
    matrices, polar = spread((2, 64, 128), 0.05)
    for scale in (1e-12, 1.0, 1e9):
        ours = orthogonalise((scale * matrices).float(), torch.bfloat16).double()
        assert (ours - polar).norm() / polar.norm() < 0.28
    assert orthogonalise(torch.zeros(1, 4, 8), torch.bfloat16).abs().max() == 0


def minimax(low: float, high: float) -> tuple[float, float, float]:
    """The odd quintic that strays least from 1 on [low, high], by Remez exchange."""
    q, r = (3 * low + high) / 4, (low + 3 * high) / 4
    for _ in range(100):
        x = np.array([low, q, r, high])
        a, b, c, _ = np.linalg.solve(np.stack([x, x**3, x**5, [1, -1, 1, -1]], 1), np.ones(4))
        root = np.sqrt(9 * b * b - 20 * a * c)
        q, r = np.sqrt((-3 * b - root) / (10 * c)), np.sqrt((-3 * b + root) / (10 * c))
    return a, b, c


def test_the_coefficients_are_those_of_polar_express():
    low, high, steps = 0.01, 1.0, len(POLAR_EXPRESS)
    for step, ours in enumerate(POLAR_EXPRESS):
        a, b, c = minimax(max(low, 0.024073274 * high), high)
        if low < 0.024073274 * high:  # the paper's cushion: a wider interval than needed would stall the large ones
            at_low, at_high = (a * x + b * x**3 + c * x**5 for x in (low, high))
            a, b, c = (v * 2 / (at_low + at_high) for v in (a, b, c))
        low = a * low + b * low**3 + c * low**5
        high = 2 - low
        if step < steps - 1:
            a, b, c = a / 1.01, b / 1.01**3, c / 1.01**5
        assert np.allclose(ours, (a, b, c), rtol=1e-6)


def test_tall_matrices_move_further_and_both_layouts_agree():
    g = torch.Generator().manual_seed(3)
    linear = torch.nn.Parameter(torch.zeros(32, 8))  # (out, in)
    conv = torch.nn.Parameter(torch.zeros(8, 32))  # the same matrix as transformers' Conv1D holds it
    linear.grad = torch.randn(32, 8, generator=g)
    conv.grad = linear.grad.t().clone()
    for p, transposed in ((linear, frozenset()), (conv, frozenset({id(conv)}))):
        Muon([p], lr=0.1, transposed=transposed).step(1.0)
    assert torch.allclose(linear, conv.t(), atol=1e-6)
    values = torch.linalg.svdvals(linear.detach())
    assert abs(values.mean() - 0.1 * 2) < 0.05  # lr * sqrt(32 / 8)


def test_it_finds_a_matrix():
    g = torch.Generator().manual_seed(0)
    target, w = torch.randn(16, 16, generator=g), torch.nn.Parameter(torch.zeros(16, 16))
    optimizer = Muon([w], lr=0.3)
    first = float((w - target).square().mean().detach())
    for step in range(100):
        loss = (w - target).square().mean()
        w.grad = torch.autograd.grad(loss, w)[0]
        optimizer.step(1 - step / 100)
    assert float((w - target).square().mean().detach()) < 0.01 * first


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_ranks_differ_by_is_less_than_the_rounding(dtype):
    """Another order of summing gradients, and another share of the stack: both move an update by less than the data
    type moves it from that of float64."""
    random = torch.Generator().manual_seed(0)
    stack = torch.randn(8, 128, 256, generator=random)
    exact, whole = orthogonalise(stack.double(), torch.float64), orthogonalise(stack, dtype).double()
    shared = torch.cat([orthogonalise(part, dtype) for part in stack.split(4)]).double()
    other = stack * (1 + 1e-7 * torch.randn(stack.shape, generator=random))
    rounding = (whole - exact).norm()
    assert (shared - whole).norm() < rounding and (orthogonalise(other, dtype).double() - whole).norm() < 2 * rounding
    assert rounding < {torch.bfloat16: 0.06, torch.float32: 1e-5}[dtype] * exact.norm()
