"""How fast a training is: its FLOPs per token, and how many of its steps fit into a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.devices import synchronize

if TYPE_CHECKING:
    from torch import nn

    from jupyter_gpt.stages.loop import Trainer


def steps_in(minutes: float, trainer: Trainer) -> int:
    """How many steps fit into `minutes` on this machine: three are taken and timed, and the weights put back.

    The optimizers keep what they learned from these steps: a run begins with new ones. Raises GPTError if not even one
    step fits.
    """
    import torch

    from jupyter_gpt.nn.modules import trained_by_name

    weights = [(p, p.detach().clone()) for p in trained_by_name(trainer.modules).values()]
    times = []
    for step in range(1, 4):
        began = time.perf_counter()
        for number in trainer.numbers(trainer.micro_batches(step)):
            micro = trainer.micro(step, number)
            (trainer.loss(micro.inputs) * micro.share).backward()
            if time.perf_counter() - began > 60 * minutes:
                raise GPTError(f"--minutes {minutes} is less than one step of this model takes here")
        trainer.optimizers.step(1.0)
        synchronize(trainer.device)
        times.append(time.perf_counter() - began)
    with torch.no_grad():
        for parameter, before in weights:
            parameter.copy_(before)
    return max(1, int(60 * minutes / sorted(times)[1]))


def training_flops(model: nn.Module) -> float:
    """Training FLOPs per token: 2 per multiplied parameter forward, 2 back to the inputs, 2 to what is trained.

    The tables of embeddings are looked up, not multiplied. A head over the vocabulary is left out: it is computed for
    some of the tokens only.
    """
    from torch import nn

    from jupyter_gpt.nn.lora_linear import unwrapped

    left_out = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    if (head := model.get_output_embeddings()) is not None:  # pyright: ignore
        left_out.add(id(unwrapped(head).weight))
    matrices = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and id(parameter) not in left_out and ".trainable_tokens_" not in name
    ]
    return sum(parameter.numel() * (6.0 if parameter.requires_grad else 4.0) for parameter in matrices)
