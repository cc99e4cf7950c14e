"""Our forward and loss against transformers' own, in float64 and with gradients."""

import pytest
import torch
import torch.nn.functional as F

from helpers.recipes import pretraining_recipe
from helpers.shapes import build as build_shape
from jupyter_gpt.nn.loss import IGNORE, cross_entropy, eager_softmax_gradient, softmax_gradient
from jupyter_gpt.nn.transformer import Trunk, attention
from jupyter_gpt.stages.pretrain import parameter_count
from jupyter_gpt.stages.pretrain_training import build

SHAPES = {
    "llama": {"depth": 2, "width": 64, "heads": 4},
    "llama-gqa": {"depth": 2, "width": 64, "heads": 4, "kv_heads": 2},
    "qwen3": {"depth": 2, "width": 64, "heads": 4, "kv_heads": 2},
    "gpt2": {"depth": 2, "width": 64, "heads": 4},
}


def tiny(name: str, **options):
    recipe = pretraining_recipe(
        {"stories": 1.0}, arch=name.split("-")[0], context=32, vocab_size=96, steps=4, **SHAPES[name], **options
    )
    model = build(recipe, 96, 0)
    with torch.no_grad():  # the residual writers start at zero, which would hide everything before them
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.1)
    return recipe, model


@pytest.mark.parametrize("name", SHAPES)
def test_trunk_and_loss_equal_transformers_in_float64(name):
    _, model = tiny(name)
    model.double()
    rows = torch.randint(0, 96, (3, 33), generator=torch.Generator().manual_seed(1))
    ids, targets = rows[:, :-1], rows[:, 1:].clone()
    targets[0, :5] = IGNORE
    theirs = model(ids, use_cache=False).logits
    want = F.cross_entropy(theirs.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    want.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    hidden = Trunk(model, 32, torch.float64)(ids)
    # transformers keeps the RMSNorm in fp32 whatever the dtype, hence not 1e-10
    assert torch.allclose(hidden @ model.lm_head.weight.t(), theirs, atol=1e-5)
    # the loss's softmax is in fp32 by design, hence its tolerance
    ours = cross_entropy(hidden, model.lm_head.weight, targets)
    ours.backward()
    assert abs(ours.item() - want.item()) < 2e-6
    for n, p in model.named_parameters():
        assert torch.allclose(p.grad, expected[n], atol=5e-6), n


@pytest.mark.parametrize("name", SHAPES)
def test_parameter_count_is_exact(name):
    r, model = tiny(name)
    count = parameter_count(r.arch, r.layers, r.width, r.heads, r.kv_heads, r.mlp, 96, r.tied, r.context)
    assert count == sum(p.numel() for p in model.parameters())


def test_unknown_architecture_falls_back_on_its_own_forward():
    model = build_shape("stablelm", hidden_size=64)
    ids = torch.randint(0, 96, (2, 16))
    hidden = Trunk(model, 16, torch.float32)(ids)
    assert torch.allclose(hidden @ model.lm_head.weight.t(), model(ids).logits, atol=1e-5)


def test_loss_in_chunks_equals_whole(monkeypatch):
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(700, 16, generator=g, requires_grad=True)
    weight = torch.randn(50, 16, generator=g, requires_grad=True)
    targets = torch.randint(0, 50, (700,), generator=g)
    targets[::7] = IGNORE
    grads = []
    for rows in (700, 256, 33):
        monkeypatch.setattr("jupyter_gpt.nn.loss.chunk_rows", lambda v, d, rows=rows: rows)
        hidden.grad = weight.grad = None
        loss = cross_entropy(hidden, weight, targets)
        loss.backward()
        grads.append((loss.detach(), hidden.grad, weight.grad))
    want = F.cross_entropy(hidden @ weight.t(), targets, ignore_index=IGNORE)
    hidden.grad = weight.grad = None
    want.backward()
    for loss, dh, dw in grads:
        assert torch.allclose(loss, want, atol=1e-6)
        assert torch.allclose(dh, hidden.grad, atol=1e-7) and torch.allclose(dw, weight.grad, atol=1e-7)


def test_both_softmax_gradients_agree():
    logits = torch.randn(40, 30) * 3
    targets = torch.randint(0, 30, (40,))
    targets[3] = IGNORE
    one, other = (
        softmax_gradient(logits, targets, torch.tensor(0.1)),
        eager_softmax_gradient(logits.clone(), targets, torch.tensor(0.1)),
    )
    assert torch.allclose(one[0], other[0], atol=1e-6) and torch.allclose(one[1], other[1], atol=1e-7)


def test_no_gradient_is_made_without_grad():
    weight = torch.randn(50, 16, requires_grad=True)
    with torch.no_grad():
        loss = cross_entropy(torch.randn(8, 16), weight, torch.randint(0, 50, (8,)))
    assert not loss.requires_grad


@pytest.mark.parametrize(("T", "H", "G"), [(64, 4, 4), (150, 4, 2), (129, 2, 1), (1, 2, 2)])
def test_attention_by_hand_equals_torch_in_float64(T, H, G):
    g = torch.Generator().manual_seed(T)
    q, k, v = (torch.randn(2, n, T, 8, generator=g, dtype=torch.float64, requires_grad=True) for n in (H, G, G))
    mask = torch.full((T, T), float("-inf"), dtype=torch.float64).triu_(1)
    theirs = attention(q, k, v, None)
    upstream = torch.randn(theirs.shape, generator=g, dtype=torch.float64)
    want = torch.autograd.grad(theirs, (q, k, v), upstream)
    ours = attention(q, k, v, mask)
    assert torch.allclose(ours, theirs, atol=1e-12)
    for a, b in zip(torch.autograd.grad(ours, (q, k, v), upstream), want, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_bf16_loss_and_gradients_follow_float64():
    _, model = tiny("llama-gqa")
    rows = torch.randint(0, 96, (3, 33), generator=torch.Generator().manual_seed(1))
    found = []
    for dtype in (torch.float64, torch.bfloat16):
        own = model.double() if dtype == torch.float64 else model.float()
        own.zero_grad(set_to_none=True)
        loss = cross_entropy(Trunk(own, 32, dtype)(rows[:, :-1]), own.lm_head.weight, rows[:, 1:])
        loss.backward()
        found.append((float(loss.detach()), {n: p.grad.double() for n, p in own.named_parameters()}))
    (want, expected), (ours, gradients) = found
    assert abs(ours - want) < 0.02
    for n, b in expected.items():
        assert (gradients[n] - b).norm() < 0.08 * b.norm(), n
