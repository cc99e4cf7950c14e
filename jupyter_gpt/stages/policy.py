"""The models of RL, all on the tensors of one base: the policy, its reference, a critic, reward models.

The policy is an adapter on a weight-sharing copy of the base; where the start is an adapter itself, a copy of that. The
reference is the start itself. A critic or a reward model is a weight-sharing copy with a head and an adapter of
its own. Only with rank 0 are there copies, trained whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jupyter_gpt.data.prompt_completion import PromptCompletion
from jupyter_gpt.nn.heads import head_of, with_head
from jupyter_gpt.nn.logprobs import Reader, foretelling, laid_out
from jupyter_gpt.nn.lora import clone_adapter, copied, lora, merged, own_tokens, plain_base
from jupyter_gpt.nn.lora_linear import is_adapter_parameter


def policy_of(start: nn.Module, rank: int, seed: int) -> nn.Module:
    """A trainable model that equals `start`, which does not change."""
    if rank == 0:
        return (merged(start).requires_grad_(True) if is_adapter(start) else copied(start)).eval()
    return (clone_adapter(start, seed) if is_adapter(start) else lora(start, rank, seed=seed)).eval()


def scorer_of(start: nn.Module, rank: int, pad: int, seed: int) -> nn.Module:
    """`start` with a head of one number, trainable: a reward model, or a critic, at step 0.

    If `start` is an adapter, its weights are copied into the scorer's own.
    """
    if rank == 0:
        return copied(with_head(merged(start) if is_adapter(start) else start, ["reward"], pad, seed=seed)).eval()
    if not is_adapter(start):
        return lora(with_head(start, ["reward"], pad, seed=seed), rank, task="SEQ_CLS", seed=seed).eval()
    config: Any = start.peft_config["default"]  # pyright: ignore[reportIndexIssue,reportArgumentType]
    targets = config.target_modules if isinstance(config.target_modules, str) else sorted(config.target_modules)
    model = lora(
        with_head(plain_base(start), ["reward"], pad, seed=seed),
        config.r,
        config.lora_alpha,
        targets,
        dora=config.use_dora,
        rslora=config.use_rslora,
        tokens=own_tokens(start),
        task="SEQ_CLS",
        seed=seed,
    )
    learned = dict(start.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter_parameter(name) and name in learned:
                parameter.copy_(learned[name])
    return model.eval()


def is_adapter(module: nn.Module) -> bool:
    """Whether a module is a peft model."""
    return hasattr(module, "peft_config")


def critic_of(start: nn.Module, rank: int, pad: int, seed: int) -> nn.Module:
    """A critic that values every state at zero, so that the first advantages are the rewards to come."""
    critic = scorer_of(start, rank, pad, seed)
    with torch.no_grad():
        for parameter in head_of(critic).parameters():
            parameter.zero_()
    return critic


def values_of(critic: Reader, rows: Sequence[PromptCompletion]) -> Tensor:
    """Values of the states before each completion token, `(B, L)`, fp32; zero at padding."""
    head = head_of(critic.module)
    hidden = critic.hidden([s.ids for s in rows])[foretelling(rows, critic.device)]
    return laid_out(head(hidden.to(next(head.parameters()).dtype))[:, 0].float(), rows)
