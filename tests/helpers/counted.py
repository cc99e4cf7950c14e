"""Bytes of tensors counted as they are made and freed, on a CPU or on torch's meta device, where the kernels of a GPU
are stood in for by what they keep for the backward pass."""

from __future__ import annotations

import weakref

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jupyter_gpt.nn import cpu_kernels, transformer


class Counted(TorchDispatchMode):
    """`now` and `peak`: bytes of the tensors made since it was entered; those of `known` are not counted."""

    def __init__(self, known):
        super().__init__()
        self.now = self.peak = 0
        self.seen = weakref.WeakKeyDictionary({tensor.untyped_storage(): True for tensor in known})

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self.seen:
                self.seen[storage] = True
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, storage.nbytes())
        return found

    def freed(self, size: int) -> None:
        self.now -= size


def fused_attention(q: Tensor, k: Tensor, v: Tensor, is_causal=False, enable_gqa=False, attn_mask=None) -> Tensor:
    """The kernel that a GPU takes; on the meta device torch would take the one that keeps all scores."""
    if q.dtype == torch.float32 or attn_mask is not None:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, attn_mask, True, 0.0, is_causal)[0]
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, is_causal)[0]


def as_on_a_gpu(monkeypatch) -> None:
    """On the meta device: fused attention, and a fused norm, which keeps its input."""
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F,
        "scaled_dot_product_attention",
        lambda q, *rest, **options: (fused_attention if q.is_meta else real)(q, *rest, **options),
    )
    monkeypatch.setattr(transformer, "rms_norm", lambda x, weight, eps: cpu_kernels.RMSNorm.apply(x, weight, eps))


def known(*modules: nn.Module) -> list[Tensor]:
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
