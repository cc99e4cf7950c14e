"""What every finetuning of one model has in common: the weights that require a gradient are trained, kept and gone back
to.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path

from jupyter_gpt.stages.loop import closing, train


class Finetuned:
    """A training with `model`, `optimizers`, `step`, `seconds` (of training) and `tokens`; its loop is `loop.train`."""

    def state(self) -> tuple[dict, dict, dict]:
        """What a checkpoint holds: the weights that are trained, optimizer and position."""
        weights = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        return weights, self.optimizers.state(), {"seconds": self.seconds, "tokens": self.tokens}

    def load(self, folder: Path) -> None:
        """Go back to the state of a checkpoint."""
        import torch

        from jupyter_gpt.runs import checkpoint

        weights, optimizer, position = checkpoint.load(folder)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(weights[name])
        self.optimizers.load(optimizer)
        self.step, self.seconds, self.tokens = position["step"], position["seconds"], position["tokens"]

    def loop(self) -> Iterator[dict | None]:
        """The run from here to its end."""
        return train(self)

    def closing(self, there: Container[str]) -> Iterator[dict | None]:
        """What the run ends with when it is stopped: see `loop.closing`."""
        return closing(self, there)

    def took(self, step: int, seconds: float, tokens: int) -> None:
        """A step has been taken."""
        self.step, self.seconds, self.tokens = step, self.seconds + seconds, self.tokens + tokens
