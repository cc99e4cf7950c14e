"""A hash of a model and its settings, the key of cached completions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jupyter_gpt.runs.worker import on_worker

SAMPLE = 32  # numbers of each tensor: training changes all of them


def of(model, settings: Mapping[str, object]) -> str:
    """The hash of `model` (of the kernel, or an endpoint) with `settings`."""
    identity = (
        f"{model.base_url} {model.model}" if model.kind == "endpoint" else on_worker("torch", lambda: weights(model))
    )
    text = json.dumps([identity, settings], sort_keys=True, default=whole)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def whole(value: Any) -> object:
    """A value as JSON has it: all of a table or an array, of which `str` shows the beginnings."""
    if hasattr(value, "columns") and hasattr(value, "to_dict"):
        return value.to_dict("split")
    return value.tolist() if hasattr(value, "tolist") else str(value)


def weights(model) -> str:
    """A hash of a sample of every tensor of a model in memory, and of its chat template."""
    import torch

    samples = []
    for tensor in model.module.state_dict().values():
        flat = tensor.detach().flatten()
        samples.append(flat[:: max(1, len(flat) // SAMPLE)][:SAMPLE].float())
    digest = hashlib.sha256(torch.cat(samples).cpu().numpy().tobytes())
    digest.update(str(getattr(model.tokenizer, "chat_template", "")).encode())
    return digest.hexdigest()
