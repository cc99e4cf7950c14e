"""A tiny model for a trainer of TRL, and its batches and gradients as ours."""

import torch

from jupyter_gpt.data.prompt_completion import PromptCompletion

TALES = [f"Tale {n}. The old fox saw {n} small birds and was glad." for n in range(40)]


def tokenizer():
    from jupyter_gpt.data.tokenizer import train_bpe

    return train_bpe(TALES, 320)


def model(tokenizer, seed=0):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=320,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.2,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def settings(kind, folder, **more):
    return kind(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        **more,
    )


def gradients(module):
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def same(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], atol=1e-5, rtol=1e-4)


def rows_in(inputs, kind=""):
    """The prompts and completions of a batch of TRL's; `kind` begins the names of its tensors."""
    rows = []
    tensors = (inputs[f"{kind}{key}"].tolist() for key in ("input_ids", "attention_mask", "completion_mask"))
    for ids, attended, completed in zip(*tensors, strict=True):
        n, start = sum(attended), completed.index(1)
        rows.append(PromptCompletion(tuple(ids[:start]), tuple(ids[start:n])))
    return rows
