"""Heads: a language model that answers with numbers, one score a label, read off its last token (GPT-1's way).

The library's own sequence classifiers, built around the tensors of a causal LM: only the small head is new. A reward
model is one with a single label (Ouyang et al. 2022), a critic another.
"""

from __future__ import annotations

import torch
from torch import nn

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.lora import with_shared_weights
from jupyter_gpt.nn.modules import base_of

STD = 0.02  # of a fresh head


def with_head(module: nn.Module, labels: list[str], pad: int, *, seed: int = 0) -> nn.Module:
    """`AutoModelForSequenceClassification` for `module`'s architecture, on a weight-sharing copy of its trunk: logits
    `(B, labels)`.

    `pad` is the id of the padding token, by which the last token of a row is found. The head is drawn from `seed`.
    Raises GPTError for an architecture that has no classifier in transformers, or one that reads another token.
    """
    from transformers import AutoModelForSequenceClassification

    config = with_shared_weights(module).config
    config.num_labels = len(labels)
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    config.pad_token_id = pad
    config.architectures = None
    try:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    except ValueError:
        raise GPTError(f"transformers has no classifier for {config.model_type} models: choose another base") from None
    if not hasattr(model, "score"):  # BERT's reads the first token, BART's the end of a pair
        raise GPTError(f"{config.model_type} models have a classifier of another make: choose another base")
    setattr(model, model.base_model_prefix, with_shared_weights(module).base_model)
    generator = torch.Generator().manual_seed(seed)
    where = next(module.parameters()).device
    for part in model.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if parameter.is_meta:  # what the causal LM had not
                drawn = torch.randn(parameter.shape, generator=generator) * (STD if parameter.ndim > 1 else 0.0)
                part.register_parameter(name, nn.Parameter(drawn.to(where)))
    return model.train(module.training)


def head_names(model: nn.Module) -> list[str]:
    """The modules of a classifier outside its trunk, by name: what is trained in full beside an adapter."""
    trunk = model.base_model_prefix
    return [name for name, part in model.named_children() if name != trunk and any(True for _ in part.parameters())]


def head_of(model: nn.Module) -> nn.Module:
    """The head of a scorer, as it is used: peft keeps a trained copy beside the old one."""
    inner = base_of(model)
    return getattr(inner, head_names(inner)[0])
