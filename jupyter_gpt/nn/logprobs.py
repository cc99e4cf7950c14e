"""How probable a model finds the completions it is shown, with gradients, and without the logits of a whole batch.

Only the places that foretell a token of a completion go through the head, some rows at a time; their logits are made
again for the backward pass instead of being kept: of 64 completions of 64 tokens over a vocabulary of 49,152 they would
take 0.8 GB, twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from jupyter_gpt.data.prompt_completion import PromptCompletion
from jupyter_gpt.nn.modules import context_of
from jupyter_gpt.nn.output_head import OutputHead, output_head
from jupyter_gpt.nn.transformer import Trunk
from jupyter_gpt.nn.varlen import Segments

LONGEST = 1 << 15  # positions whose rotations are laid in beforehand


class Reader:
    """A causal LM or a classifier, peft or not, as something that turns rows of ids into hidden states.

    Rows are laid end to end, each seeing only itself: nothing is spent on padding. `dtype` is that of the activations,
    by default of the weights; with `recomputed` they are recomputed in the backward pass.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None = None, recomputed: bool = False):
        weight = next(module.parameters())
        self.module, self.device = module, weight.device
        self.trunk = Trunk(module, min(context_of(module), LONGEST), dtype or weight.dtype, recomputed)

    @cached_property
    def head(self) -> OutputHead:
        """That of a causal LM."""
        return output_head(self.trunk)

    def hidden(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The last hidden states `(N, D)` of all tokens, row after row."""
        lengths = [len(row) for row in rows]
        bounds = torch.tensor([0, *lengths], device=self.device).cumsum(0).to(torch.int32)
        positions = torch.cat([torch.arange(n, device=self.device) for n in lengths])
        ids = torch.tensor([[token for row in rows for token in row]], device=self.device)
        return self.trunk(ids, Segments(lengths, positions, bounds, max(lengths)))[0]


def foretelling(rows: Sequence[PromptCompletion], device) -> Tensor:
    """The places `(n,)`, in rows laid end to end, before each token of a completion."""
    found, first = [], 0
    for row in rows:
        found += range(first + len(row.prompt) - 1, first + len(row.ids) - 1)
        first += len(row.ids)
    return torch.tensor(found, device=device)


def logprobs(reader: Reader, rows: Sequence[PromptCompletion]) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy, in nats, of each token of the completions: `(B, L)` each, zero where there is none.

    L is the length of the longest completion; `mask_of(rows)` says which places count.
    """
    head, targets = reader.head, torch.tensor([token for s in rows for token in s.completion], device=reader.device)
    hidden = reader.hidden([s.ids for s in rows])[foretelling(rows, reader.device)]
    logp, entropy = head.logprobs(hidden, targets)
    return laid_out(logp, rows), laid_out(entropy, rows)


def laid_out(values: Tensor, rows: Sequence[PromptCompletion]) -> Tensor:
    """Values `(n,)` of all tokens as `(B, L)`, zero where there is none."""
    mask = mask_of(rows, values.device)
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)


def mask_of(rows: Sequence[PromptCompletion], device: torch.device | str = "cpu") -> Tensor:
    """`(B, L)`, True where a completion has a token."""
    lengths = torch.tensor([len(s.completion) for s in rows], device=device)
    return torch.arange(int(lengths.max()), device=device)[None] < lengths[:, None]
