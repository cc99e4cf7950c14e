"""Rows of the embedding and of the head that an adapter brings with it: peft's `trainable_token_indices`.

A base that was never shown its chat tokens has no use for their rows, and LoRA leaves both tables frozen. peft keeps
new rows for a few tokens beside a table and puts them in the place of the old ones, by copying the whole table at each
forward; here the table stays where it is, for training and for decoding, and only what these few rows decide is
replaced.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PARTS = ("TrainableTokensWrapper", "TrainableTokensLayer", "BufferDict")  # what peft puts around a table for this


class TokenRows(NamedTuple):
    """Rows `(n, D)` in the dtype of their table, and the token ids `(n,)` that they are of."""

    ids: Tensor
    rows: Tensor


def is_wrapped(layer: nn.Module) -> bool:
    """Whether peft keeps rows of its own beside the table of this layer."""
    return hasattr(layer, "token_adapter")


def unwrapped(layer: nn.Module) -> nn.Module:
    """The layer that holds the table itself."""
    return layer.token_adapter.base_layer if is_wrapped(layer) else layer


def token_rows(layer: nn.Module) -> TokenRows | None:
    """The rows that stand in the place of the table's own; None where there are none, or the adapter is off or
    merged.
    """
    if not is_wrapped(layer):
        return None
    adapter = layer.token_adapter
    names = [name for name in adapter.active_adapters if name in adapter.trainable_tokens_delta]
    if not names or adapter.merged or adapter.disable_adapters:
        return None
    weight = adapter.base_layer.weight
    rows = [adapter.trainable_tokens_delta[name].to(weight) for name in names]
    ids = tuple(token for name in names for token in adapter.token_indices[name])
    return TokenRows(tensor_of(ids, weight.device), rows[0] if len(rows) == 1 else torch.cat(rows))


@lru_cache(64)
def tensor_of(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """Made once: on a GPU each copy of a list would be waited for."""
    with torch.inference_mode(False):
        return torch.tensor(ids, device=device)


def embed(ids: Tensor, table: Tensor, own: TokenRows | None) -> Tensor:
    """`F.embedding` of ids `(…)` in a table `(V, D)`, with the adapter's rows in the place of the table's."""
    x = F.embedding(ids, table)
    if own is None:
        return x
    hit = ids[..., None] == own.ids
    return torch.where(hit.any(-1, keepdim=True), F.embedding(hit.int().argmax(-1), own.rows), x)


def snapshot(layer: nn.Module) -> TokenRows | None:
    """The rows as they are now, whatever training makes of them later."""
    own = token_rows(layer)
    return own and own._replace(rows=own.rows.detach().clone())
