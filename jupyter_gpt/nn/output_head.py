"""From the last hidden states of a causal LM to its logits, its loss and its log-probabilities: one way for all stages.

What stands between the two is a matrix, and in many architectures more: a bias, a scale, a soft cap, a layer or two. No
configuration names these. The head is the model's own forward around hidden states that are known
already; a few tokens decide whether that makes the model's own logits, and whether it is the matrix and nothing else,
for which there are kernels that never hold the logits of a batch. Where it does not, the whole model is run as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.lora_linear import token_rows, unwrapped
from jupyter_gpt.nn.loss import IGNORE, SelectedLogits, chunk_rows, cross_entropy, eager_softmax_gradient, logits_of
from jupyter_gpt.nn.modules import eval_mode
from jupyter_gpt.nn.transformer import Trunk, probe, trunk_paths

LARGE = 100.0  # a factor on hidden states at which a soft cap shows
ROUGH = 0.45  # of an epsilon: what two passes of a large model may differ by, and one that sees the future differs more


@dataclass(frozen=True, eq=False)
class OutputHead:
    """`logits` makes those `(n, V)` of last hidden states `(n, D)`. Where a matrix is the whole of it, `matrix` is the
    layer that holds it, perhaps with rows of an adapter; else None.
    """

    logits: Callable[[Tensor], Tensor]
    vocabulary: int
    matrix: nn.Module | None = None

    def cross_entropy(self, hidden: Tensor, targets: Tensor, gradient_of=eager_softmax_gradient) -> Tensor:
        """Mean loss in nats over the targets `(...)` that are not IGNORE, of hidden states `(..., D)`; in fp32."""
        if self.matrix is not None:
            return cross_entropy(hidden, unwrapped(self.matrix).weight, targets, gradient_of, token_rows(self.matrix))

        def summed(h: Tensor, t: Tensor) -> tuple[Tensor]:
            return (F.cross_entropy(self.logits(h).float(), t, ignore_index=IGNORE, reduction="sum")[None],)

        (nats,) = self.in_chunks(summed, hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1))
        return nats.sum() / (targets != IGNORE).sum().clamp(min=1)

    def logprobs(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each target and entropy, `(n,)` each, in nats, of hidden states `(n, D)`; no gradient goes
        through the entropy."""
        if self.matrix is not None:
            own = token_rows(self.matrix) or (None, None)
            return SelectedLogits.apply(hidden, unwrapped(self.matrix).weight, targets, *own)

        def selected(h: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            every = torch.log_softmax(self.logits(h).float(), dim=-1)
            entropy = -(every.detach().exp() * every.detach()).sum(dim=-1)
            return every.gather(1, t[:, None])[:, 0], entropy

        return self.in_chunks(selected, hidden, targets)

    def in_chunks(self, function: Callable, hidden: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """What `function(hidden, targets)` returns, some rows at a time; logits are made again for their gradient."""
        rows = chunk_rows(self.vocabulary, hidden.device.type)
        parts = zip(hidden.split(rows), targets.split(rows), strict=True)
        if torch.is_grad_enabled():
            found = [checkpoint(function, h, t, use_reentrant=False) for h, t in parts]
        else:
            found = [function(h, t) for h, t in parts]
        return tuple(torch.cat(each) for each in zip(*found, strict=True))


def output_head(trunk: Trunk) -> OutputHead:
    """The head of the causal LM in `trunk`. Where that has no hidden states to take, `trunk` is set to make its logits.

    Raises GPTError, one line, for a model that cannot be run on token ids alone, or whose logits depend on what comes
    after: there is no next token for it to predict.
    """
    model, kind = trunk.model, trunk.model.config.model_type
    ids = probe(model)
    half = ids.shape[1] // 2
    other = torch.cat([ids[:, :half], ids[:, :half]], dim=1)
    ends: dict[str, object] = {}  # what each part came to that may be the trunk
    hooks = [
        model.get_submodule(path).register_forward_hook(
            lambda part, inputs, output, path=path: ends.update({path: output})
        )
        for path in trunk_paths(model)
    ]
    with torch.no_grad(), eval_mode(model):
        try:
            changed, own = (model(input_ids=each, use_cache=False).logits[0] for each in (other, ids))
        except Exception as error:  # whatever the forward of any architecture raises
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise GPTError(
                f"{kind} models cannot be trained here: on text alone they fail ({reason[0][:200]})"
            ) from error
        finally:
            for hook in hooks:
                hook.remove()
        if own.isnan().any():
            raise GPTError("the model's logits are not finite: its weights are damaged, or its training diverged")
        if not most_alike(changed[:half], own[:half]):
            raise GPTError(f"{kind} models cannot be trained here: a token sees those that come after it")
        for path, output in ends.items():
            try:
                hidden = output[0][0]
                alone = model.get_submodule(path)(input_ids=ids, use_cache=False)[0][0]
                found = around(model, path, hidden)
            except Exception:  # so this part is not what the head reads, or needs more than ids: see the next
                continue
            if alike(found, own) and most_alike(alone, hidden):
                trunk.ends_at(model.get_submodule(path))
                return head_at(trunk, path, hidden, own.shape[1])
    trunk.logits_alone()
    return OutputHead(lambda hidden: hidden, own.shape[1])


def head_at(trunk: Trunk, path: str, hidden: Tensor, vocabulary: int) -> OutputHead:
    """The head that reads what the part at `path` makes, `hidden` `(n, D)` for one."""
    model, dtype = trunk.model, next(trunk.model.parameters()).dtype

    def logits(hidden: Tensor) -> Tensor:
        with trunk.autocast(hidden.device):
            return around(model, path, hidden if torch.is_autocast_enabled(hidden.device.type) else hidden.to(dtype))

    matrix = plain_matrix(model, trunk.body, hidden, lambda hidden: around(model, path, hidden))
    return OutputHead(logits, vocabulary, matrix)


def plain_matrix(
    model: nn.Module, body: nn.Module, hidden: Tensor, logits: Callable[[Tensor], Tensor]
) -> nn.Module | None:
    """The layer of the head's matrix where that is all there is to it, and nothing else in the head can be trained."""
    matrix = model.get_output_embeddings()
    head = unwrapped(matrix)
    if type(head) is not nn.Linear or head.bias is not None or head._forward_hooks or head._forward_pre_hooks:
        return None
    known = {id(parameter) for part in (body, matrix) for parameter in part.parameters()}
    if head.in_features != hidden.shape[1] or any(id(parameter) not in known for parameter in model.parameters()):
        return None
    own = token_rows(matrix) or (None, None)
    for scale in (0.0, 1.0, LARGE):  # a bias, a factor, a cap
        if not alike(logits(scale * hidden), logits_of(scale * hidden, head.weight, *own)):
            return None
    return matrix


def around(model: nn.Module, path: str, hidden: Tensor) -> Tensor:
    """The logits `(n, V)` that `model` makes where its part at `path` has come to the hidden states `(n, D)`."""
    part = copy.copy(model.get_submodule(path))
    part.forward = lambda *args, **kwargs: Given(hidden[None])
    ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
    return with_part(model, path, part)(input_ids=ids, use_cache=False).logits[0]


def with_part(module: nn.Module, path: str, part: nn.Module) -> nn.Module:
    """A module like `module`, of the same parts but for the one at `path`; `module` stays as it is."""
    name, _, rest = path.partition(".")
    found = copy.copy(module)
    found._modules = {**module._modules, name: with_part(module._modules[name], rest, part) if rest else part}
    return found


class Given(Sequence):
    """Hidden states as the output of a model: first of a tuple, `last_hidden_state`, and nothing else in it."""

    def __init__(self, hidden: Tensor):
        self.last_hidden_state = hidden

    def __getitem__(self, place):
        return (self.last_hidden_state,)[place]

    def __len__(self) -> int:
        return 1

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def alike(found: Tensor, wanted: Tensor) -> bool:
    """Whether two ways came to the same numbers, up to the order of their sums in the number format."""
    return found.shape == wanted.shape and bool(off(found, wanted).max() <= coarseness(found, wanted) ** 0.7)


def most_alike(found: Tensor, wanted: Tensor) -> bool:
    """The same of most rows: in half precision a router of experts may choose another one the second time."""
    return found.shape == wanted.shape and bool(off(found, wanted).median() <= coarseness(found, wanted) ** ROUGH)


def off(found: Tensor, wanted: Tensor) -> Tensor:
    """The largest difference of each row, as a share of the largest number of all."""
    most = wanted.float().abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return (found.float() - wanted.float()).abs().amax(dim=-1) / most


def coarseness(*tensors: Tensor) -> float:
    """The spacing of numbers around 1 in the coarsest format among `tensors`."""
    return max(torch.finfo(tensor.dtype).eps for tensor in tensors)
