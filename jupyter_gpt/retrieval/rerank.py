"""Reranking: a cross-encoder reads the question and a chunk together, and says how well one answers the other.

Slower than comparing embeddings, and better: so it reads only what the first search has found. The score is the logit
of a transformers sequence classifier with one label, as sentence-transformers' cross-encoders are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jupyter_gpt.errors import GPTError

PAIRS = 16  # read together


def from_folder(name: str, folder: Path, device: str) -> Callable[[str, Sequence[str]], list[float]]:
    """A function that scores texts against a question, higher is nearer. Raises GPTError for what is no
    cross-encoder.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if not any(folder.glob("*.safetensors")):
        raise GPTError(f"reranker {name} has no safetensors in {folder}: pickled weights are never read")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        module, found = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except (
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        RuntimeError,
        ImportError,
        SafetensorError,
    ) as error:
        raise GPTError(f"reranker {name} cannot be loaded from {folder}: {str(error).splitlines()[0][:200]}") from error
    if module.config.num_labels != 1 or found["missing_keys"]:
        raise GPTError(f"{name} is no cross-encoder: a sequence classifier with one label is wanted")
    module.requires_grad_(False).to(device).eval()
    limit = min(tokenizer.model_max_length, getattr(module.config, "max_position_embeddings", 512), 512)

    def scores(question: str, texts: Sequence[str]) -> list[float]:
        order, out = sorted(range(len(texts)), key=lambda i: -len(texts[i])), [0.0] * len(texts)
        for start in range(0, len(order), PAIRS):
            some = order[start : start + PAIRS]
            batch = tokenizer(
                [question] * len(some),
                [texts[i] for i in some],
                padding=True,
                max_length=limit,
                truncation="only_second",
                return_tensors="pt",
                verbose=False,
            ).to(device)
            with torch.inference_mode():
                logits = module(**batch).logits[:, 0].float().tolist()
            for i, logit in zip(some, logits, strict=True):
                out[i] = logit
        return out

    return scores
