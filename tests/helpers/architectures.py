"""Tiny random models of the causal LMs that transformers has, whatever stands between hidden states and logits made
strong.
"""

import warnings

import pytest
import torch

VOCAB = 99

# what a configuration has of these, by its names
SIZES = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    d_model=32,
    n_embd=32,
    embedding_size=32,
    block_ff_dim=48,
    intermediate_size=48,
    ffn_dim=48,
    n_inner=48,
    dff=48,
    num_hidden_layers=2,
    n_layer=2,
    n_layers=2,
    num_layers=2,
    decoder_layers=2,
    num_attention_heads=4,
    n_head=4,
    n_heads=4,
    num_heads=4,
    decoder_attention_heads=4,
    decoder_ffn_dim=48,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    n_positions=64,
    max_seq_len=64,
    n_ctx=64,
    moe_intermediate_size=16,
    shared_expert_intermediate_size=16,
    num_experts=4,
    n_routed_experts=4,
    num_local_experts=4,
    num_experts_per_tok=2,
    rotary_dim=4,
    sliding_window=4,
    window_size=4,
    attention_chunk_size=4,
    type_vocab_size=1,
    q_lora_rank=16,
    kv_lora_rank=8,
    qk_rope_head_dim=4,
    qk_nope_head_dim=8,
    v_head_dim=8,
    d_kv=8,
    dropout=0.0,
    attention_dropout=0.0,
    state_size=8,
    mamba_d_state=8,
    mamba_n_heads=8,
    mamba_d_head=8,
    mamba_n_groups=1,
    mamba_expand=2,
    chunk_size=8,
    mamba_chunk_size=8,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=8,
    linear_value_head_dim=8,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    final_logit_softcapping=1.0,
    logits_soft_cap=1.0,
    output_logit_soft_cap=1.0,
    logit_scale=0.1,
    logits_scaling=8.0,
    lm_head_multiplier=3.0,
)

LATENT = dict(num_key_value_heads=4, head_dim=4)
LINEAR = dict(layer_types=["linear_attention", "full_attention"])
MIXED = dict(layer_types=["sliding_attention", "full_attention"])
ARCHITECTURES = {
    "apertus": {},
    "arcee": {},
    "bamba": dict(attn_layer_indices=[1]),
    "bart": {},
    "bert": dict(is_decoder=True),
    "biogpt": {},
    "bloom": {},
    "codegen": {},
    "cohere": {},
    "cohere2": MIXED,
    "ctrl": {},
    "deepseek_v2": dict(LATENT, topk_group=1, n_group=1),
    "deepseek_v3": dict(LATENT, topk_group=1, n_group=1),
    "diffllama": {},
    "ernie4_5": {},
    "exaone4": MIXED,
    "falcon": {},
    "falcon_h1": dict(mamba_d_ssm=64),
    "falcon_mamba": {},
    "gemma": {},
    "gemma2": MIXED,
    "gemma3_text": MIXED,
    "gemma3n_text": dict(
        num_hidden_layers=4,
        num_kv_shared_layers=2,
        layer_types=MIXED["layer_types"] * 2,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=VOCAB,
        laurel_rank=4,
        activation_sparsity_pattern=[0.0] * 4,
        altup_num_inputs=2,
        intermediate_size=[48] * 4,
    ),
    "glm": {},
    "glm4": {},
    "glm4_moe": {},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": dict(attention_types=[[["global", "local"], 1]]),
    "gpt_neox": {},
    "gpt_oss": MIXED,
    "gptj": {},
    "granite": {},
    "granitemoe": {},
    "granitemoehybrid": dict(layer_types=["mamba", "attention"]),
    "granitemoeshared": {},
    "helium": {},
    "hunyuan_v1_dense": {},
    "hyperclovax": {},
    "jamba": dict(
        attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, use_mamba_kernels=False
    ),
    "jetmoe": {},
    "lfm2": dict(layer_types=["conv", "full_attention"]),
    "llama": {},
    "llama4_text": dict(layer_types=["chunked_attention", "full_attention"]),
    "mamba": {},
    "mamba2": dict(num_heads=8, n_groups=1),
    "minicpm3": LATENT,
    "minimax": LINEAR,
    "mistral": {},
    "mixtral": {},
    "modernbert-decoder": {},
    "mpt": dict(logit_scale=None),
    "nanochat": {},
    "nemotron": {},
    "nemotron_h": dict(
        num_hidden_layers=4,
        layers_block_type=["mamba", "attention", "moe", "mamba"],
        mamba_num_heads=8,
        mamba_head_dim=8,
        n_groups=1,
        ssm_state_size=8,
        moe_shared_expert_intermediate_size=16,
        moe_latent_size=None,
    ),
    "olmo": {},
    "olmo2": {},
    "olmo3": MIXED,
    "olmoe": {},
    "openai-gpt": {},
    "opt": {},
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "phimoe": {},
    "qwen2": {},
    "qwen2_moe": {},
    "qwen3": {},
    "qwen3_5_text": LINEAR,
    "qwen3_moe": {},
    "qwen3_next": LINEAR,
    "recurrent_gemma": dict(
        num_hidden_layers=3, lru_width=32, attention_window_size=8, block_types=["recurrent", "recurrent", "attention"]
    ),
    "rwkv": {},
    "seed_oss": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {},
    "vaultgemma": {},
    "xglm": {},
    "xlstm": dict(qk_dim_factor=1.0, v_dim_factor=1.0),
    "zamba2": dict(
        num_hidden_layers=4,
        num_key_value_heads=4,
        mamba_headdim=8,
        n_mamba_heads=8,
        mamba_ngroups=1,
        layers_block_type=["mamba", "mamba", "hybrid", "mamba"],
        hybrid_layer_ids=[2],
        num_mem_blocks=1,
        adapter_rank=4,
    ),
}

ROPES = {
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "factor": 4.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 2.0, 4.0, 8.0],
        "original_max_position_embeddings": 8,
    },
}


def tiny(kind: str, seed: int = 0, **more):
    """A model of random weights, biases and norms among them, in fp32; skips where the library has none of that
    kind.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KINDS

    if kind not in KINDS:
        pytest.skip(f"transformers has no {kind} here")
    has = AutoConfig.for_model(kind).to_dict()
    own = {**{key: value for key, value in SIZES.items() if key in has}, **ARCHITECTURES.get(kind, {}), **more}
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **own)).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.endswith(("A_log", "dt_bias", "time_decay")):  # rates of decay, which must stay in their range
                weight.add_(torch.randn(weight.shape, generator=generator) * (0.3 if weight.ndim < 2 else 0.15))
        for name, values in model.named_buffers():
            if name.endswith("final_logits_bias"):
                values.normal_(generator=generator)
    return model.requires_grad_(False)
