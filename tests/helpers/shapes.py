"""Small random models of the architectures that have forwards of our own, and prompts of mixed length."""

import pytest
import torch

VOCAB, CONTEXT = 199, 128
PADDING = VOCAB - 1  # a token whose row transformers does not train

MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
# All that the configurations of these architectures can ask for: windows shorter than the prompts, caps low enough to
# matter, biases, attention that is not scaled by the size of a head, layers without positions, tied tables and not.
FULL = {
    "gpt2": {},
    "llama": dict(
        attention_bias=True,
        mlp_bias=True,
        rope_parameters=dict(
            rope_type="llama3",
            rope_theta=1e4,
            factor=4.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "qwen2": dict(use_sliding_window=True, sliding_window=7, max_window_layers=1, tie_word_embeddings=True),
    "qwen3": dict(use_sliding_window=True, sliding_window=7, layer_types=MIXED, attention_bias=True),
    "mistral": dict(sliding_window=7, rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0)),
    "mistral without a window": dict(sliding_window=None, hidden_act="gelu_pytorch_tanh"),
    "phi3": dict(sliding_window=7),
    "phi3 without a window": dict(num_key_value_heads=4),
    "olmo2": dict(attention_bias=True),
    "smollm3": dict(
        no_rope_layers=[1, 0, 1],
        use_sliding_window=True,
        sliding_window=7,
        attention_bias=True,
        mlp_bias=True,
    ),
    "gemma": dict(attention_bias=True),
    "gemma2": dict(
        sliding_window=7,
        layer_types=MIXED,
        query_pre_attn_scalar=24,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
        attention_bias=True,
    ),
    "gemma2 without caps": dict(attn_logit_softcapping=None, final_logit_softcapping=None, tie_word_embeddings=False),
    "gemma3_text": dict(
        sliding_window=7,
        layer_types=MIXED,
        query_pre_attn_scalar=24,
        final_logit_softcapping=3.0,
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", rope_theta=1e5, factor=4.0),
            sliding_attention=dict(rope_type="default", rope_theta=1e3),
        ),
    ),
}


def full(name: str, **more):
    """A model of `FULL`, of three layers if not GPT-2; norms and biases are random too."""
    kind, layers = name.partition(" ")[0], {} if name == "gpt2" else {"num_hidden_layers": 3}
    module, generator = build(kind, **{**layers, **FULL[name], **more}), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


def build(kind: str, **more):
    """A random model of two layers; wide enough initial weights that its choices are not ties."""
    import transformers

    torch.manual_seed(0)
    if kind == "gpt2":
        shape = dict(
            vocab_size=VOCAB,
            n_embd=more.pop("hidden_size", 48),
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
        config = transformers.AutoConfig.for_model(
            kind, **{**shape, "initializer_range": 0.2, "pad_token_id": PADDING, **more}
        )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def random_prompts(count: int, longest: int = 60, seed: int = 1) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=generator).tolist()
    return [tuple(torch.randint(1, VOCAB, (n,), generator=generator).tolist()) for n in lengths]


LAYERS = {"gpt2": ["c_attn"], "phi3": ["qkv_proj", "down_proj"]}  # that an adapter is put into


def lora(module, name: str = "default", seed: int = 3, tokens: list[int] | None = None):
    """A peft model whose adapter does something; with `tokens`, it has rows of its own for these."""
    peft = pytest.importorskip("peft")
    kind = module.config.model_type
    tables = ["wte" if kind == "gpt2" else "embed_tokens"] + ["lm_head"] * (not module.config.tie_word_embeddings)
    config = peft.LoraConfig(
        r=4,
        target_modules=LAYERS.get(kind, ["q_proj", "v_proj", "down_proj"]),
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
