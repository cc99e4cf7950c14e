"""Training on a real GPU against a CPU. Where there is none these are skipped, and `test_cuda_paths.py` walks the same
code on an emulated one."""

import pytest
import torch

from helpers.stage_losses import stage_losses
from jupyter_gpt.nn import devices, transformer
from jupyter_gpt.nn.varlen import Segments

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.03)])
def test_the_losses_of_each_stage_are_those_of_a_cpu(gpt, monkeypatch, dtype, tolerance):
    with monkeypatch.context() as patch:
        patch.setattr(devices, "default_device", lambda: "cpu")
        cpu = stage_losses(gpt, "-cpu")
    gpu = stage_losses(gpt, "-gpu", dtype)
    for stage, losses in cpu.items():
        assert gpu[stage] == pytest.approx(losses, rel=tolerance), stage


@pytest.mark.parametrize("groups", [1, 3])
def test_attention_of_packed_texts_is_that_of_each_text(groups):
    """FlashAttention's kernel for texts of varying length, forward and backward, against float64 text by text."""
    lengths, heads = [1, 64, 129, 300, 18], 6
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).cuda()
    positions = torch.cat([torch.arange(n) for n in lengths]).cuda()
    segments = Segments(lengths, positions, bounds, max(lengths))
    torch.manual_seed(0)
    shapes = [(1, n, sum(lengths), 64) for n in (heads, heads // groups, heads // groups)]
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for shape in shapes)
    assert transformer.has_flash(q)
    y = transformer.packed_attention(q, k, v, None, segments)
    weight = torch.randn_like(y)
    found = [y.detach(), *torch.autograd.grad((y * weight).sum(), (q, k, v))]
    doubles = [x.detach().double().requires_grad_() for x in (q, k, v)]
    texts = [
        torch.nn.functional.scaled_dot_product_attention(a, b, c, is_causal=True, enable_gqa=groups > 1)
        for a, b, c in zip(*(x.split(lengths, dim=2) for x in doubles), strict=True)
    ]
    expected = torch.cat(texts, dim=2).transpose(1, 2).flatten(2)
    wanted = [expected.detach(), *torch.autograd.grad((expected * weight).sum(), doubles)]
    for one, other in zip(found, wanted, strict=True):
        assert (one.double() - other).norm() < 0.01 * other.norm()
