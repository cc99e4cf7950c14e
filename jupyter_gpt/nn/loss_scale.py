"""Loss scaling for activations in float16 (Micikevicius et al. 2018), as `torch.amp.GradScaler` does it.

Gradients below 6e-8 are zero in float16. So the loss is multiplied by a large number before the backward pass, and the
gradients, which are fp32 where the weights are, are divided by it before they are clipped. Where one is not finite the
number was too large: that step is left out, and the number halved. After many good steps it is doubled.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from jupyter_gpt.errors import GPTError

FIRST, LEAST = 2.0**16, 2.0**-4
GROWTH = 2000  # good steps, one after the other, until the scale is doubled


class LossScale:
    """The scale of a run. `good` counts the steps since it last changed; `skips` is whether the step at hand is left
    out."""

    def __init__(self):
        self.scale, self.good, self.skips, self.pending = FIRST, 0, False, False

    def scaled(self, loss: Tensor) -> Tensor:
        """What the backward pass starts from."""
        self.pending = True
        return loss * self.scale

    def unscale(self, parameters: Iterable[Tensor]) -> None:
        """Divide the gradients of a step, once; where one is not finite they become zero, and the step is left out.

        Raises GPTError where no scale is small enough.
        """
        if not self.pending:
            return
        self.pending = False
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            self.skips = False
            return
        torch._foreach_mul_(gradients, 1.0 / self.scale)
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        self.skips = not bool((norm.full_tensor() if hasattr(norm, "full_tensor") else norm).isfinite())
        if self.skips:
            torch._foreach_zero_(gradients)
            self.scale, self.good = self.scale / 2, 0
            if self.scale < LEAST:
                raise GPTError("the gradients are not finite in float16, at any loss scale: use --dtype float32")
        else:
            self.good += 1
            if self.good == GROWTH:
                self.scale, self.good = self.scale * 2, 0

    def state(self) -> list[float]:
        return [self.scale, self.good]

    def load(self, state: list[float]) -> None:
        self.scale, self.good = state[0], int(state[1])
