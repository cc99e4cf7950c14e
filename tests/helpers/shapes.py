"""Small random models of the three shapes that have a forward of our own, and prompts of mixed length."""

import pytest
import torch

VOCAB, CONTEXT = 199, 128


def build(kind: str, **more):
    """A random model of two layers; wide enough initial weights that its choices are not ties."""
    import transformers

    torch.manual_seed(0)
    if kind == "gpt2":
        shape = dict(
            vocab_size=VOCAB,
            n_embd=48,
            n_layer=2,
            n_head=4,
            n_positions=CONTEXT,
            bos_token_id=0,
            eos_token_id=0,
        )
        config = transformers.GPT2Config(**shape, initializer_range=0.2, **more)
    else:
        shape = dict(
            vocab_size=VOCAB,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            head_dim=16,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            bos_token_id=0,
            eos_token_id=0,
        )
        kinds = {
            "llama": transformers.LlamaConfig,
            "qwen3": transformers.Qwen3Config,
            "mistral": transformers.MistralConfig,
            "gemma2": transformers.Gemma2Config,
        }
        config = kinds[kind](**shape, initializer_range=0.2, **more)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def random_prompts(count: int, longest: int = 60, seed: int = 1) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=generator).tolist()
    return [tuple(torch.randint(1, VOCAB, (n,), generator=generator).tolist()) for n in lengths]


def lora(module, name: str = "default", seed: int = 3, tokens: list[int] | None = None):
    """A peft model whose adapter does something; with `tokens`, it has rows of its own for these."""
    peft = pytest.importorskip("peft")
    kind = module.config.model_type
    tables = ["wte" if kind == "gpt2" else "embed_tokens"] + ["lm_head"] * (not module.config.tie_word_embeddings)
    config = peft.LoraConfig(
        r=4,
        target_modules=["c_attn"] if kind == "gpt2" else ["q_proj", "v_proj", "down_proj"],
        trainable_token_indices={table: tokens for table in tables} if tokens else None,
    )
    wrapped = peft.get_peft_model(module, config, adapter_name=name)
    shake(wrapped, name, seed)
    return wrapped


def shake(wrapped, name: str, seed: int) -> None:
    """Random weights where LoRA begins at zero."""
    generator = torch.Generator().manual_seed(seed)
    for key, weight in wrapped.named_parameters():
        if ("lora_B" in key and f".{name}." in key) or "trainable_tokens_delta" in key:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
