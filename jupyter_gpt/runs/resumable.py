"""What of a training on a frozen base is kept in a checkpoint: the weights that move, their optimiser, the position.

The base itself is on disk already, so a checkpoint of an adapter is a few megabytes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from jupyter_gpt.nn.lora import trained
from jupyter_gpt.nn.optimizer import Optimizers
from jupyter_gpt.runs import checkpoint


def moving(modules: dict[str, nn.Module]) -> dict[str, nn.Parameter]:
    """The trainable parameters of several modules, each under its module's name. Raises GPTError where one has none."""
    for module in modules.values():
        trained(module)
    return {
        f"{name}.{key}": parameter
        for name, module in modules.items()
        for key, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def adamw(modules: dict[str, nn.Module], peaks: dict[str, float], weight_decay: float = 0.0) -> Optimizers:
    """One AdamW over the trainable parameters of `modules`, each with a peak learning rate of its own."""
    names = {parameter: name for name, parameter in moving(modules).items()}
    groups = [
        {"params": [p for p in module.parameters() if p.requires_grad], "peak": peaks[name], "lr": peaks[name]}
        for name, module in modules.items()
    ]
    return Optimizers(None, torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True), names)


def load(folder: Path, modules: dict[str, nn.Module], optimizers: Optimizers) -> dict:
    """Go back to a checkpoint; returns its position, `step` among it."""
    weights, optimizer, position = checkpoint.load(folder)
    with torch.no_grad():
        for name, parameter in moving(modules).items():
            parameter.copy_(weights[name])
    optimizers.load(optimizer)
    return position
