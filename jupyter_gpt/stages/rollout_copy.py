"""Rollouts by a copy of the policy in fewer bits (`%%rlhf --rollout-dtype`): the policy trains, its copy samples.

The copy follows the policy before each step. Of an adapter only the small matrices are copied; without one the whole
model is rounded anew. The copy finds what it samples a little more or less probable than the policy does, for which
`rl_losses.importance_weights` corrects the loss.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from jupyter_gpt.inference.decode_forward import release
from jupyter_gpt.models import quantize
from jupyter_gpt.nn.lora import clone_adapter, copy_adapter, plain_base, states, with_shared_weights
from jupyter_gpt.stages.policy import is_adapter
from jupyter_gpt.stages.rollout import Prompt, roll_out


class RolloutCopy:
    """A copy of a policy in `dtype`: "bfloat16", "int8" or "int4"."""

    def __init__(self, dtype: str):
        self.dtype = dtype
        self.module: nn.Module | None = None
        self.step: int | None = None  # that whose weights it has

    def roll_out(self, training, prompts: Sequence[Prompt], samples: int, seeds: Sequence[int]) -> Iterator[None]:
        """As `rollout.roll_out`; `old` is by the copy."""
        if self.module is None or self.step != training.step:
            self.module, self.step = followed(training.model, self.module, self.dtype), training.step
            yield
        most, stop = training.recipe.max_tokens, training.stop
        rollout = yield from roll_out(self.module, training.tokenizer, prompts, samples, most, stop, seeds)
        release(self.module)
        return rollout

    def close(self) -> None:
        self.module = None


def followed(policy: nn.Module, before: nn.Module | None, dtype: str) -> nn.Module:
    """The policy in `dtype`, made of its copy `before` a step if that has the same base."""
    if not is_adapter(policy):
        return rounded(policy, dtype)
    if before is None:
        return clone_adapter(policy, base=rounded(plain_base(policy), dtype)).eval()
    copy_adapter(policy, before)
    return before


def rounded(module: nn.Module, dtype: str) -> nn.Module:
    """A copy of a model without adapter in `dtype`."""
    if dtype == "bfloat16":
        made = copy.deepcopy(module, states(module)).requires_grad_(False)
        for parameter in made.parameters():  # buffers stay: angles need their bits
            parameter.data = parameter.data.bfloat16()
        return made

    def read(name: str, start: int | None, end: int | None) -> Tensor:
        return module.get_parameter(name).detach()[start:end].float()

    return quantize.quantize(with_shared_weights(module), dtype, read)
