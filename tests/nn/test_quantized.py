"""8-bit and 4-bit weights: each way to multiply by them against a float64 product of the dequantised ones."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from jupyter_gpt.nn import quantized
from jupyter_gpt.nn.quantized import Int4, Int8, QuantizedLinear

SHAPES = [(64, 64), (144, 96), (192, 32), (320, 160)]
PLAIN = {"has_integer_products": lambda: False}
NOTHING = {**PLAIN, "has_kernels": lambda bits: False}
WAYS = {
    "as it comes": {},
    "torch's kernels": PLAIN,
    "none": NOTHING,
    "another layout": {**NOTHING, "layout_here": lambda: None},
}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    for name, function in WAYS[request.param].items():
        monkeypatch.setattr(quantized, name, function)
    return request.param


def weights_of(bits: int, N: int, K: int, seed: int = 0):
    """Weights in so many bits, and what they stand for in float64."""
    w = torch.randn(N, K, generator=torch.Generator().manual_seed(seed)) * torch.linspace(0.01, 3, N)[:, None]
    if bits == 8:
        codes, scale = quantized.to_int8(w)
        return Int8(codes, scale), codes.double() * scale.double()[:, None], w
    codes, scales = quantized.to_int4(w)
    scale, zero = scales.double().repeat_interleave(quantized.GROUP, 1).unbind(-1)
    return Int4([quantized.pack_int4(codes)], [scales]), (codes.double() - 8) * scale + zero, w


def off(found, wanted) -> float:
    return ((found.double() - wanted).abs().amax(1) / wanted.abs().amax(1)).max().item()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("N, K", SHAPES)
@pytest.mark.parametrize("rows", [1, 3, 20, 200])
def test_products_are_those_of_the_dequantised_weights(way, bits, N, K, rows):
    weights, exact, _ = weights_of(bits, N, K)
    x = torch.randn(rows, K, generator=torch.Generator().manual_seed(1)).bfloat16()
    x[:, 0] *= 40  # as in language models, a few inputs are much larger than the others
    found = quantized.product(x, weights)
    assert found.dtype == torch.bfloat16
    assert off(found, x.double() @ exact.t()) < 0.01
    assert off(weights.transposed(torch.float32).t(), exact) < (0.005 if way == "another layout" else 1e-6)


@pytest.mark.parametrize("bits, most", [(8, 0.005), (4, 0.07)])
def test_rounding_stays_within_half_a_step(bits, most):
    _, exact, w = weights_of(bits, 144, 96)
    groups = (exact - w).view(144, -1, 96 if bits == 8 else 32)
    spread = w.view_as(groups)
    step = spread.abs().amax(-1) / 127 if bits == 8 else (spread.amax(-1) - spread.amin(-1)) / 15
    assert (groups.abs().amax(-1) <= 0.56 * step).all(), "half a step, and the rounding of scales to bf16"
    assert off(exact, w.double()) < most


def test_an_integer_product_keeps_more_than_bf16_and_no_row_depends_on_another():
    if not quantized.has_integer_products():
        pytest.skip("this CPU has no fast products of 8-bit integers")
    weights, exact, _ = weights_of(8, 192, 160)
    x = torch.randn(40, 160, generator=torch.Generator().manual_seed(2))
    rows, scale = quantized.split_rows(x)
    high, low = rows.double().chunk(2)
    assert ((high * quantized.SPLIT + low) * scale - x).abs().max() <= 0.51 * scale.max(), "14 bits"
    assert off(weights.split(x), x.double() @ exact.t()) < 2e-4
    together = weights.split(x)
    assert all(torch.equal(weights.split(x[n : n + 1]), together[n : n + 1]) for n in range(len(x)))
    assert not weights.split(torch.zeros(1, 160)).any()


@pytest.mark.parametrize("bits", [8, 4])
def test_layers_side_by_side_are_the_layers(way, bits):
    whole, exact, _ = weights_of(bits, 192, 64)
    parts = quantized.parts_of(whole, [128, 16, 48])
    bias = nn.Parameter(torch.randn(16).bfloat16(), False)
    layers = [QuantizedLinear(part, bias if n == 1 else None) for n, part in enumerate(parts)]
    x = torch.randn(2, 3, 64).bfloat16()
    wanted = x.double() @ exact.t()
    wanted[..., 128:144] += bias.double()
    for order in ([0, 1, 2], [1], [2, 0], [0, 1]):
        some = torch.cat([wanted.split([128, 16, 48], -1)[n] for n in order], -1)
        found = quantized.multiplied([layers[n] for n in order])(x)
        assert off(found.flatten(0, 1), some.flatten(0, 1)) < 0.01
    assert torch.equal(layers[1](x), quantized.multiplied(layers[1:2])(x))
    assert quantized.bytes_of(nn.ModuleList(layers)) == whole.nbytes, "a piece of memory counts once"
    assert copy.deepcopy(layers[0]).weights is layers[0].weights


def test_a_gradient_goes_through_dequantised_weights():
    layer = QuantizedLinear(weights_of(4, 64, 64)[0], None)
    x = torch.randn(5, 64, requires_grad=True)
    layer(x).sum().backward()
    assert torch.allclose(x.grad, layer.weight.float().sum(0).expand(5, -1), atol=1e-4)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_weights_that_had_4_bits_keep_their_codes(kind):
    gguf = pytest.importorskip("gguf")
    w = np.random.default_rng(0).standard_normal((96, 256)).astype(np.float32)
    quant = gguf.GGMLQuantizationType[kind]
    exact = torch.from_numpy(gguf.dequantize(gguf.quantize(w, quant), quant))
    codes, scales = quantized.to_int4(exact)
    scale, zero = scales.double().repeat_interleave(quantized.GROUP, 1).unbind(-1)
    step = scale.clone()
    assert (((codes - 8) * scale + zero - exact).abs() <= 0.04 * step).all(), "only the scales are rounded, to bf16"
    groups = exact.view(96, -1, 32)
    places = codes.view(96, -1, 32)
    for row, group in ((0, 0), (50, 3), (95, 7)):
        values = groups[row, group].unique()
        assert len(places[row, group].unique()) == len(values), "one code for each value"
    rounded, _ = quantized.to_int4(torch.from_numpy(w))
    assert not torch.equal(rounded, codes)


def test_both_layouts_of_codes_are_read():
    """As torch lays them out with AVX-512, with AVX2, and without either."""
    N, K = 144, 32
    codes = torch.randint(0, 16, (N, K), generator=torch.Generator().manual_seed(0)).to(torch.uint8)

    def packed(block: int) -> torch.Tensor:
        bits, whole = [], N // block * block if block else 0
        for start in range(0, whole, block or 1):
            low, high = codes[start : start + block].split(block // 2)
            bits.append((low | high << 4).t().flatten())
        start, tail = whole, N - whole if block else 32
        while start < N:
            rows = codes[start : start + tail]
            bits.append((rows[::2] | rows[1::2] << 4).t().flatten())
            start += tail
        return torch.cat(bits).view(N, K // 2)

    for block in (64, 32, 0):
        found = quantized.unpacked(packed(block), N, K, block, torch.float32)
        assert torch.equal(found.t() + 8, codes.float())
    if quantized.has_kernels(4):
        assert torch.equal(quantized.pack_int4(codes.to(torch.int32)), packed(quantized.layout_here()))
