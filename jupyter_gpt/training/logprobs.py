"""How probable a model finds the completions it is shown, with gradients, and without the logits of a whole batch.

Only the places that foretell a token of a completion go through the head, some rows at a time; their logits are made
again for the backward pass instead of being kept: of 64 completions of 64 tokens over a vocabulary of 49,152 they would
take 0.8 GB, twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jupyter_gpt.inference.forward import base_of, context_of
from jupyter_gpt.training.loss import chunk_rows
from jupyter_gpt.training.segments import Segments
from jupyter_gpt.training.spoken import Spoken
from jupyter_gpt.training.transformer import Trunk

LONGEST = 1 << 15  # positions whose rotations are laid in beforehand
SCALED = ("final_logit_softcapping", "logits_scaling", "logit_scale")  # of configurations whose head is not all


class Chosen(torch.autograd.Function):
    """Of hidden states `(n, D)` and a head `(V, D)`: the log-probability `(n,)` of each target and the entropy `(n,)`,
    both in fp32 nats; no gradient goes through the entropy.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        chunk = chunk_rows(len(weight), hidden.device.type, 256 if weight.requires_grad else 64)
        logps, entropies = [], []
        low = weight.to(hidden.dtype)
        for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logp = torch.log_softmax(h @ low.t(), dim=-1, dtype=torch.float32)
            logps.append(logp.gather(1, t[:, None])[:, 0])
            entropies.append(-logp.exp().mul_(logp).sum(dim=-1))
        ctx.save_for_backward(hidden, weight, targets)
        ctx.chunk = chunk
        logp, entropy = torch.cat(logps), torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    def backward(ctx, upstream: Tensor, _entropy):
        hidden, weight, targets = ctx.saved_tensors
        low = weight.to(hidden.dtype)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        parts = (x.split(ctx.chunk) for x in (hidden, targets, upstream, d_hidden))
        for h, t, g, out in zip(*parts, strict=True):
            d = torch.softmax(h @ low.t(), dim=-1, dtype=torch.float32).mul_(-g[:, None])
            d.scatter_add_(1, t[:, None], g[:, None].to(d.dtype))
            d = d.to(hidden.dtype)
            torch.mm(d, low, out=out)
            if d_weight is not None:
                d_weight += d.t().float() @ h.float()
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), None


class Reader:
    """A causal LM or a classifier, peft or not, as something that turns rows of ids into hidden states.

    Rows are laid end to end, each seeing only itself: nothing is spent on padding. `dtype` is that of the activations, by
    default of the weights.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None = None):
        weight = next(module.parameters())
        self.module, self.inner, self.device = module, base_of(module), weight.device
        self.trunk = Trunk(module, min(context_of(module), LONGEST), dtype or weight.dtype)

    def hidden(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The last hidden states `(N, D)` of all tokens, row after row."""
        lengths = [len(row) for row in rows]
        bounds = torch.tensor([0, *lengths], device=self.device).cumsum(0).to(torch.int32)
        positions = torch.cat([torch.arange(n, device=self.device) for n in lengths])
        ids = torch.tensor([[token for row in rows for token in row]], device=self.device)
        return self.trunk(ids, Segments(lengths, positions, bounds, max(lengths)))[0]


def foretelling(rows: Sequence[Spoken], device) -> Tensor:
    """The places `(n,)`, in rows laid end to end, before each token of a completion."""
    found, first = [], 0
    for row in rows:
        found += range(first + len(row.prompt) - 1, first + len(row.ids) - 1)
        first += len(row.ids)
    return torch.tensor(found, device=device)


def logprobs(reader: Reader, rows: Sequence[Spoken]) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy, in nats, of each token of the completions: `(B, L)` each, zero where there is none.

    L is the length of the longest completion; `mask_of(rows)` says which places count.
    """
    inner, device = reader.inner, reader.device
    targets = torch.tensor([token for s in rows for token in s.completion], device=device)
    head, config = inner.get_output_embeddings(), inner.config.get_text_config()
    scaled = any(getattr(config, name, None) not in (None, 1, 1.0) for name in SCALED)
    if type(head) is nn.Linear and head.bias is None and not scaled:
        hidden = reader.hidden([s.ids for s in rows])[foretelling(rows, device)]
        logp, entropy = Chosen.apply(hidden, head.weight, targets)
    else:
        width = max(len(s.ids) for s in rows)
        places = [(b, len(s.prompt) - 1 + k) for b, s in enumerate(rows) for k in range(len(s.completion))]
        row, column = torch.tensor(places, device=device).unbind(1)
        ids = torch.tensor([[*s.ids, *[0] * (width - len(s.ids))] for s in rows], device=device)
        every = torch.log_softmax(inner(input_ids=ids, use_cache=False).logits[row, column].float(), dim=-1)
        logp = every.gather(1, targets[:, None])[:, 0]
        entropy = -(every.exp() * every).sum(dim=-1).detach()
    return laid_out(logp, rows), laid_out(entropy, rows)


def laid_out(values: Tensor, rows: Sequence[Spoken]) -> Tensor:
    """Values `(n,)` of all tokens as `(B, L)`, zero where there is none."""
    mask = mask_of(rows, values.device)
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)


def mask_of(rows: Sequence[Spoken], device: torch.device | str = "cpu") -> Tensor:
    """`(B, L)`, True where a completion has a token."""
    lengths = torch.tensor([len(s.completion) for s in rows], device=device)
    return torch.arange(int(lengths.max()), device=device)[None] < lengths[:, None]
