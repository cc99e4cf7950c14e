"""A model large enough that its memory shows in that of the process, measured in a process of its own."""

from pathlib import Path

from helpers.apart import printed


def measured_on_large(script: str, folder: Path, tokenizer) -> str:
    """What `script` prints, given a folder with a model of about 120 MB."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=6,
        num_attention_heads=8,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return printed(script, folder)
