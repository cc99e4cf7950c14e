"""What completions came from, in a few characters: the same model, the same question and the same settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from jupyter_gpt.runs.worker import on_worker

TAKEN = 32  # numbers taken of each tensor: training moves all of them


def of(model, settings: Mapping[str, object]) -> str:
    """The fingerprint of `model` (of the kernel, or an endpoint) asked with `settings`."""
    who = f"{model.base_url} {model.model}" if model.kind == "endpoint" else on_worker("torch", lambda: weights(model))
    said = json.dumps([who, settings], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def weights(model) -> str:
    """A digest of some numbers of every tensor of a model in memory, and of its chat template."""
    import torch

    taken = []
    for tensor in model.module.state_dict().values():
        flat = tensor.detach().flatten()
        taken.append(flat[:: max(1, len(flat) // TAKEN)][:TAKEN].float())
    digest = hashlib.sha256(torch.cat(taken).cpu().numpy().tobytes())
    digest.update(str(getattr(model.tokenizer, "chat_template", "")).encode())
    return digest.hexdigest()
