"""One pass of a model over new tokens of every row of a batch, for any architecture.

`forward_of` looks at a module once and returns a function `(ids, positions, mask, cache, keep, adapters) -> logits`:
our decoding forward where there is one, else the module's own with our cache, and for a model whose state is not keys
and values (state-space and other recurrent layers) one that reads the whole sequence again at each step: slow, but
right.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from jupyter_gpt.inference import weight_prepacking
from jupyter_gpt.inference.decode_forward import DecodeForward, decode_forward
from jupyter_gpt.inference.graphs import GraphedSteps
from jupyter_gpt.inference.kv_cache import KVCache
from jupyter_gpt.nn.modules import base_of, eval_mode, keeps_keys_and_values

PATIENCE = 6  # decoding steps before the weights are prepacked; on a GPU it is done at once, before graphs are captured


def own_forward(module: nn.Module) -> Callable:
    """The module's forward with our cache."""
    parameters = inspect.signature(base_of(module).forward).parameters
    name = "cache" if "cache" in parameters else "past_key_values"  # its name in newer and older transformers

    @torch.inference_mode()
    def forward(
        ids: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, keep: int, adapters: list[str] | None = None
    ) -> Tensor:
        options = {"adapter_names": adapters} if adapters else {}
        if "position_ids" in parameters:
            options["position_ids"] = positions
        if "logits_to_keep" in parameters:
            options["logits_to_keep"] = keep
        with eval_mode(module):
            out = module(input_ids=ids, attention_mask=mask.long(), use_cache=True, **{name: cache}, **options)
        return out.logits[:, -keep:].float()

    return forward


def uncached_forward(module: nn.Module) -> Callable:
    """A forward that caches the ids of every row and reads them all again."""
    parameters = inspect.signature(base_of(module).forward).parameters

    @torch.inference_mode()
    def forward(
        ids: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, keep: int, adapters: list[str] | None = None
    ) -> Tensor:
        all_ids = cache.update(ids[:, None, :, None], ids.new_zeros(len(ids), 1, ids.shape[1], 0), 0)[0][:, 0, :, 0]
        logits = []
        with eval_mode(module):
            for row, (row_ids, valid) in enumerate(zip(all_ids, mask, strict=True)):
                options = {"adapter_names": [adapters[row]]} if adapters else {}
                if "use_cache" in parameters:
                    options["use_cache"] = False
                if not bool(valid.any()):  # all padding so far: its prompt is shorter than its neighbours'
                    logits.append(torch.zeros(1, base_of(module).config.vocab_size, device=ids.device))
                    continue
                logits.append(module(input_ids=row_ids[valid][None], **options).logits[0, -keep:].float())
        width = max(len(x) for x in logits)
        return torch.stack([torch.cat([x.new_zeros(width - len(x), x.shape[1]), x]) for x in logits])

    return forward


class Decoder:
    """The decoding forward, with weights prepacked as soon as enough is decoded to pay for it and, on a GPU, steps
    captured as CUDA graphs."""

    def __init__(self, module: nn.Module, forward: DecodeForward, static: bool = False):
        self.module, self.steps_decoded = module, 0
        may_pack = weight_prepacking.worth_packing(module)
        prepacked = weight_prepacking.prepacked(module) if may_pack else None
        self.forward = decode_forward(module, prepacked) if prepacked else forward
        self.may_pack = may_pack and prepacked is None
        self.static = static or next(module.parameters()).device.type == "cuda"
        self.graphed: GraphedSteps | None = None
        self.own = own_forward(module)

    def __call__(
        self, ids: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, keep: int, adapters: list[str] | None = None
    ) -> Tensor:
        if adapters:  # rows with different adapters
            return self.own(ids, positions, mask, cache, keep, adapters)
        width = ids.shape[1]
        self.steps_decoded += cache.length > width
        if self.may_pack and self.steps_decoded >= (1 if self.static else PATIENCE):
            self.forward = decode_forward(self.module, weight_prepacking.prepack(self.module))
            self.may_pack = False
        if self.static and width == 1 < cache.length:
            self.graphed = self.graphed or GraphedSteps(self.forward)
            return self.graphed(ids, positions, mask, cache)
        return self.forward(ids, positions, mask, cache, keep)


def forward_of(module: nn.Module) -> Callable:
    """The fastest forward that is right for this module."""
    forward = decode_forward(module, weight_prepacking.unpacked)
    if forward is not None:
        return Decoder(module, forward)
    return own_forward(module) if keeps_keys_and_values(module) else uncached_forward(module)
