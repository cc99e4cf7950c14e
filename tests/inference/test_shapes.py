"""Every architecture that has forwards of ours, with all that its configuration can ask for, against transformers: the
decoding forward. `tests/nn/test_shapes.py` does the same for the training forward."""

import copy

import pytest
import torch

from helpers.decoding import run, same_as_generate
from helpers.shapes import FULL, full, lora
from jupyter_gpt.inference import forward as forwards
from jupyter_gpt.inference.decode_forward import decode_forward, packed, stacked, unpacked
from jupyter_gpt.inference.forward import Decoder, forward_of, own_forward
from jupyter_gpt.inference.kv_cache import KVCache
from jupyter_gpt.inference.sampling import Request
from jupyter_gpt.models.quantize import quantize
from jupyter_gpt.nn.quantized import format_of


@pytest.fixture(scope="module", params=FULL)
def module(request):
    return full(request.param)


def check_steps(ours, theirs, longest=40):
    """The logits of a batch with padding before, and after some steps between, the tokens of its rows."""
    random = torch.Generator().manual_seed(5)
    caches = [KVCache(3, 64, torch.device("cpu")) for _ in range(2)]
    for counts in ([longest, 3, 17], [1, 1, 1], [1, 1, 1], [4, 4, 4], [1, 1, 1]):
        ids = torch.randint(1, 190, (3, max(counts)), generator=random)
        found = []
        for forward, cache in zip((ours, theirs), caches, strict=True):
            positions, mask = cache.append(counts, max(counts))
            found.append(forward(ids, positions, mask, cache, min(counts)))
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", [unpacked, packed, stacked])
def test_logits_are_those_of_transformers(module, layout):
    ours = decode_forward(module, layout)
    check_steps(ours, own_forward(module))
    assert ours.model.windows <= {7, 4096}


def test_greedy_tokens_are_those_of_generate(module, prompts):
    assert isinstance(forward_of(module), Decoder)
    same_as_generate(module, prompts[:9])


def test_greedy_tokens_with_an_adapter(module, prompts):
    adapted = lora(copy.deepcopy(module))
    assert isinstance(forward_of(adapted), Decoder)
    said = same_as_generate(adapted, prompts[:6])
    assert said != run(module, [Request(p, max_tokens=20, temperature=0) for p in prompts[:6]])


def test_steps_in_static_memory(module, prompts, monkeypatch):
    """What a GPU captures as CUDA graphs, uncaptured."""
    quick = forwards.Decoder
    monkeypatch.setattr(forwards, "Decoder", lambda module, forward: quick(module, forward, static=True))
    monkeypatch.setattr(forwards, "COLUMNS", 16)
    same_as_generate(module, prompts[:5], 30)


def test_a_window_counts_tokens_and_not_columns(module):
    """Rows of a batch may advance by different numbers of tokens; the columns between are empty."""
    lengths, forward = [[9, 2, 5], [1, 3, 2], [2, 1, 4], [1, 1, 1]], forward_of(module)
    random, cache = torch.Generator().manual_seed(3), KVCache(3, 32, torch.device("cpu"))
    rows: list[list[int]] = [[], [], []]
    for counts in lengths:
        width = max(counts)
        ids = torch.zeros(3, width, dtype=torch.long)
        for row, n in enumerate(counts):
            ids[row, width - n :] = torch.randint(1, 190, (n,), generator=random)
            rows[row] += ids[row, width - n :].tolist()
        positions, mask = cache.append(counts, width)
        logits = forward(ids, positions, mask, cache, 1)
    with torch.no_grad():
        wanted = torch.stack([module(torch.tensor([row])).logits[0, -1:] for row in rows])
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_quantized_weights(name, dtype):
    module = full(name, hidden_size=64)  # 4 bits take groups of 32
    weights = dict(module.state_dict())
    small = quantize(copy.deepcopy(module).bfloat16(), dtype, lambda name, *rows: weights[name][slice(*rows)].float())
    ours = decode_forward(small, unpacked)
    assert ours is not None and format_of(small) == dtype
    ids = torch.randint(1, 190, (2, 30), generator=torch.Generator().manual_seed(1))
    cache = KVCache(2, 32, torch.device("cpu"))
    positions, mask = cache.append([30, 30], 30)
    found = ours(ids, positions, mask, cache, 30)
    with torch.no_grad():
        wanted = small(ids).logits.float()
    assert (found - wanted).abs().mean() < 0.05 * wanted.abs().mean()
