"""From a recipe to a transformers model with fresh weights.

The architectures are the library's own, so the saved folder loads anywhere. The initialisation is ours: matrices with
standard deviation 1/sqrt(inputs), the two projections that write into the residual stream at zero (each block starts
as the identity), a small head; drawn on the CPU from the seed, so that every device starts from the same weights.
"""

from __future__ import annotations

import torch
from torch import nn

from jupyter_gpt.nn.devices import seeded

RESIDUAL_WRITERS = ("o_proj", "down_proj", "c_proj")


def build(recipe, vocab_size: int, eot: int) -> nn.Module:
    """A causal LM in fp32 on the CPU, its weights a function of the recipe and its seed alone.

    `vocab_size` is that of the tokenizer; the table is padded to a multiple of 64 rows when it is large, for speed.
    """
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    table = -(-vocab_size // 64) * 64 if vocab_size >= 512 else vocab_size
    common = {"vocab_size": table, "bos_token_id": eot, "eos_token_id": eot, "tie_word_embeddings": recipe.tied}
    if recipe.arch == "gpt2":
        config = GPT2Config(
            n_positions=recipe.context,
            n_embd=recipe.width,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            n_inner=recipe.mlp,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **common,
        )
        kind = GPT2LMHeadModel
    else:
        shape = {
            "hidden_size": recipe.width,
            "intermediate_size": recipe.mlp,
            "num_hidden_layers": recipe.layers,
            "num_attention_heads": recipe.heads,
            "num_key_value_heads": recipe.kv_heads,
            "head_dim": recipe.width // recipe.heads,
            "max_position_embeddings": recipe.context,
        }
        if recipe.arch == "llama":
            kind, config = LlamaForCausalLM, LlamaConfig(rms_norm_eps=1e-5, **shape, **common)
        else:
            kind, config = Qwen3ForCausalLM, Qwen3Config(rms_norm_eps=1e-6, **shape, **common)
    with seeded(recipe.seed, torch.device("cpu")):  # what the library draws here is drawn anew
        model = kind(config)
    initialise(model, recipe)
    return model


@torch.no_grad()
def initialise(model: nn.Module, recipe) -> None:
    """Draw every weight anew from `recipe.seed`."""
    from transformers.pytorch_utils import Conv1D

    generator = torch.Generator().manual_seed(recipe.seed)
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            module.weight.normal_(0.0, 0.02 if recipe.tied or recipe.optimizer == "adamw" else 0.5, generator=generator)
        elif isinstance(module, nn.Linear | Conv1D):
            if module is head and recipe.tied:
                continue
            inputs = module.weight.shape[0 if isinstance(module, Conv1D) else 1]
            if name.rsplit(".", 1)[-1] in RESIDUAL_WRITERS:
                module.weight.zero_()
            else:
                std = 0.02 if module is head else inputs**-0.5
                module.weight.normal_(0.0, std, generator=generator)
            if getattr(module, "bias", None) is not None:
                module.bias.zero_()


def flops_per_token(recipe, parameters: int, vocab_size: int) -> float:
    """Training FLOPs per token: 6 per multiplied parameter and 12 L T d for attention (Chowdhery et al. 2022, app. B).

    The input table is looked up, not multiplied, unless the head shares it.
    """
    table = vocab_size * recipe.width
    multiplied = parameters - (0 if recipe.tied else table)
    if recipe.arch == "gpt2":
        multiplied -= recipe.context * recipe.width
    return 6.0 * multiplied + 12.0 * recipe.layers * recipe.width * recipe.context
