"""Parameters of the models that `%%pretrain` builds, without building them. Nothing here imports torch."""

from __future__ import annotations


def parameters(recipe, vocabulary: int) -> int:
    """Parameters of the model of a recipe."""
    shape = recipe.arch, recipe.layers, recipe.width, recipe.heads, recipe.kv_heads, recipe.mlp
    return parameter_count(*shape, vocabulary, recipe.tied, recipe.context)


def parameter_count(
    arch: str, layers: int, width: int, heads: int, kv_heads: int, mlp: int, vocab_size: int, tied: bool, context: int
) -> int:
    """Parameters of the transformers module that this shape builds, exactly."""
    if arch == "gpt2":
        block = 4 * width * width + 4 * width + 2 * width * mlp + mlp + width + 4 * width
        return layers * block + 2 * width + (1 if tied else 2) * vocab_size * width + context * width
    head = width // heads
    block = 2 * width * width + 2 * width * kv_heads * head + 3 * width * mlp + 2 * width
    block += 2 * head if arch == "qwen3" else 0
    return layers * block + width + (1 if tied else 2) * vocab_size * width
