"""One pass of a model over new tokens of every row of a batch, whatever the model is.

`forward_of` looks at a module once and returns a function `(ids, positions, mask, cache, keep, adapters) ->
logits`: the lean forward where there is one; else the module's own with our cache; and for a model whose
memory is not keys and values (state-space and other recurrent layers) one that reads everything again at each
step: slow, and right.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from jupyter_gpt.inference import weight_prepacking as packed
from jupyter_gpt.inference.cache import Rows
from jupyter_gpt.inference.decode_forward import Lean, lean_of
from jupyter_gpt.inference.graphs import Steps
from jupyter_gpt.nn.modules import base_of, keeps_keys_and_values, resting

PATIENCE = (
    6  # steps of decoding after which it pays to lay the weights out anew; on a GPU at once, before graphs are made
)


def own_forward(module: nn.Module) -> Callable:
    """The module's forward over our cache."""
    takes = inspect.signature(base_of(module).forward).parameters
    kept = "cache" if "cache" in takes else "past_key_values"  # its name in newer and older transformers

    @torch.inference_mode()
    def forward(
        ids: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: Rows,
        keep: int,
        adapters: list[str] | None = None,
    ) -> Tensor:
        options = {"adapter_names": adapters} if adapters else {}
        if "position_ids" in takes:
            options["position_ids"] = positions
        if "logits_to_keep" in takes:
            options["logits_to_keep"] = keep
        with resting(module):
            out = module(input_ids=ids, attention_mask=mask.long(), use_cache=True, **{kept: cache}, **options)
        return out.logits[:, -keep:].float()

    return forward


def reading_again(module: nn.Module) -> Callable:
    """A forward that keeps the ids of every row and no other memory."""
    takes = inspect.signature(base_of(module).forward).parameters

    @torch.inference_mode()
    def forward(
        ids: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: Rows,
        keep: int,
        adapters: list[str] | None = None,
    ) -> Tensor:
        all_ids = cache.update(ids[:, None, :, None], ids.new_zeros(len(ids), 1, ids.shape[1], 0), 0)[0][:, 0, :, 0]
        logits = []
        with resting(module):
            for row, (seen, counts) in enumerate(zip(all_ids, mask, strict=True)):
                options = {"adapter_names": [adapters[row]]} if adapters else {}
                if "use_cache" in takes:
                    options["use_cache"] = False
                if not bool(counts.any()):  # nothing of this row yet: its prompt is shorter than its neighbours'
                    logits.append(torch.zeros(1, base_of(module).config.vocab_size, device=ids.device))
                    continue
                logits.append(module(input_ids=seen[counts][None], **options).logits[0, -keep:].float())
        width = max(len(x) for x in logits)
        return torch.stack([torch.cat([x.new_zeros(width - len(x), x.shape[1]), x]) for x in logits])

    return forward


class Quick:
    """The lean forward; weights packed as soon as enough is decoded to pay for it; on a GPU, steps in CUDA
    graphs."""

    def __init__(self, module: nn.Module, lean: Lean, static: bool = False):
        self.module, self.decoded = module, 0
        self.may_pack = packed.worth_packing(module)
        ready = packed.kept(module) if self.may_pack else None
        self.lean, self.may_pack = lean_of(module, ready) if ready else lean, self.may_pack and ready is None
        self.static = static or next(module.parameters()).device.type == "cuda"
        self.steps: Steps | None = None
        self.own = own_forward(module)

    def __call__(
        self,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: Rows,
        keep: int,
        adapters: list[str] | None = None,
    ) -> Tensor:
        if adapters:  # rows of several adapters
            return self.own(ids, positions, mask, cache, keep, adapters)
        width = ids.shape[1]
        self.decoded += cache.length > width
        if self.may_pack and self.decoded >= (1 if self.static else PATIENCE):
            self.lean = lean_of(self.module, packed.keep(self.module))
            self.may_pack = False
        if self.static and width == 1 < cache.length:
            self.steps = self.steps or Steps(self.lean)
            return self.steps(ids, positions, mask, cache)
        return self.lean(ids, positions, mask, cache, keep)


def forward_of(module: nn.Module) -> Callable:
    """The best forward for this module."""
    lean = lean_of(module, packed.as_they_are)
    if lean is not None:
        return Quick(module, lean)
    return own_forward(module) if keeps_keys_and_values(module) else reading_again(module)
