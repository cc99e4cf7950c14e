"""The attention of packed texts as a GPU computes it, walked on a CPU: by torch's kernel for texts of varying length,
with the signature that it has, and by what older cards and other number formats fall back on."""

import inspect
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import varlen

from jupyter_gpt.nn import transformer
from jupyter_gpt.nn.lora import lora
from jupyter_gpt.nn.modules import trained
from jupyter_gpt.nn.transformer import Trunk, causal, has_flash
from jupyter_gpt.nn.varlen import Segments

LENGTHS = [300, 40, 3, 38, 1, 41, 300, 17]
SIGNATURE = inspect.signature(varlen.varlen_attn)


def reference(*args, **kwargs):
    """What torch's kernel computes, called as it would be: queries `(N, H, h)`, keys and values `(N, G, h)`."""
    found = SIGNATURE.bind(*args, **kwargs)
    found.apply_defaults()
    a = SimpleNamespace(**found.arguments)
    assert a.window_size == (-1, 0), "causal"
    assert a.cu_seq_q.dtype == a.cu_seq_k.dtype == torch.int32 and a.cu_seq_k.tolist() == a.cu_seq_q.tolist()
    lengths = a.cu_seq_q.diff().tolist()
    assert a.cu_seq_q[0] == 0 and a.cu_seq_q[-1] == len(a.query) and max(lengths) <= min(a.max_q, a.max_k)
    assert all(x.stride(-1) == 1 and x.shape[-1] % 8 == 0 for x in (a.query, a.key, a.value))
    assert a.enable_gqa or a.query.shape[1] == a.key.shape[1]
    texts = zip(*(x.transpose(0, 1).split(lengths, dim=1) for x in (a.query, a.key, a.value)), strict=True)
    found = [F.scaled_dot_product_attention(*text, is_causal=True, enable_gqa=a.enable_gqa) for text in texts]
    return torch.cat(found, dim=1).transpose(0, 1)


def tiny(kind):
    from helpers.recipes import pretraining_recipe
    from jupyter_gpt.stages.pretrain_training import build

    recipe = pretraining_recipe(
        {"x": 1}, depth=2, width=32, heads=4, kv_heads=None if kind == "gpt2" else 2, context=512, arch=kind
    )
    model = build(recipe, 96, 0).eval().requires_grad_(False)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    return model.double()


def outcome(model):
    """Hidden states of a stream, and the gradients of what is trained."""
    ids = torch.randint(0, 96, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(2))
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    segments = Segments(LENGTHS, torch.cat([torch.arange(n) for n in LENGTHS]), bounds, max(LENGTHS) + 4)
    hidden = Trunk(model, 512, torch.float64)(ids, segments)
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3)).double()
    below = [p for name, p in model.named_parameters() if p.requires_grad and "lm_head" not in name]
    return [hidden.detach(), *torch.autograd.grad((hidden * weights).sum(), below)]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("path", ["kernel", "fallback", "fallback without shared keys"])
def test_packed_texts_on_a_gpu_are_those_of_the_cpu(kind, adapter, path, monkeypatch):
    model = tiny(kind)
    model = lora(model, 2).double() if adapter else model.requires_grad_(True)
    with torch.no_grad():
        for p in trained(model):
            p.add_(torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(4)) * 0.05)
    wanted, called = outcome(model), []
    monkeypatch.setattr(transformer, "eager", lambda x: False)
    monkeypatch.setattr(transformer, "has_flash", lambda q: path == "kernel")
    monkeypatch.setattr(transformer, "shares_keys", lambda q: "without" not in path)
    monkeypatch.setattr(varlen, "varlen_attn", lambda *a, **k: called.append(1) or reference(*a, **k))
    for found, expected in zip(outcome(model), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-7)
    assert len(called) == (2 if path == "kernel" else 0)


def test_the_kernel_of_the_torch_that_is_here_has_all_that_is_given():
    named = {"window_size", "enable_gqa"}
    assert named <= {name for name, p in SIGNATURE.parameters.items() if p.kind is p.KEYWORD_ONLY}
    first = [name for name, p in SIGNATURE.parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert first[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]


@pytest.mark.parametrize(
    "capability, dtype, width, wanted",
    [
        ((8, 0), torch.bfloat16, 64, True),
        ((9, 0), torch.float16, 128, True),
        ((12, 0), torch.bfloat16, 64, True),
        ((7, 0), torch.float16, 64, False),
        ((7, 5), torch.float16, 64, False),
        ((9, 0), torch.float32, 64, False),
        ((9, 0), torch.bfloat16, 12, False),
        ((9, 0), torch.bfloat16, 256, False),
    ],
)
def test_cards_and_formats_that_have_flash_attention(capability, dtype, width, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    q = SimpleNamespace(dtype=dtype, shape=(1, 4, 9, width), device=torch.device("cuda:0"))
    assert has_flash(q) == wanted
    q.device = torch.device("cpu")
    assert not has_flash(q)
    assert causal(*(torch.randn(1, n, 5, 8) for n in (4, 2, 2))).shape == (1, 4, 5, 8)
