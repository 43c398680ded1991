"""Tiny random models of many families, for tests that compare ways of computing the same numbers."""

from __future__ import annotations

from typing import Any

VOCABULARY = 160

_DIMS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT = {
    "vocab_size": VOCABULARY,
    "n_positions": 512,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4, "moe_intermediate_size": 32}
_WINDOW = {"sliding_window": 16}
_MIXED = {**_WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}

TREE: dict[str, dict[str, Any]] = {
    "llama": _DIMS,
    "mistral": {**_DIMS, **_WINDOW},
    "mixtral": {**_DIMS, **_EXPERTS, **_WINDOW},
    "qwen2": {**_DIMS, **_WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {**_DIMS, **_MIXED, "use_sliding_window": True},
    "qwen3_moe": {**_DIMS, **_EXPERTS},
    "olmo2": _DIMS,
    "olmo3": {**_DIMS, **_MIXED},
    "gemma2": {**_DIMS, **_MIXED, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8},
    "gemma3_text": {**_DIMS, **_MIXED, "query_pre_attn_scalar": 8},
    "cohere": {**_DIMS, "logit_scale": 0.25},
    "cohere2": {**_DIMS, **_MIXED, "logit_scale": 0.25},
    "granite": {**_DIMS, "logits_scaling": 3.0, "embedding_multiplier": 2.0},
    "phi3": {**_DIMS, **_WINDOW},
    "smollm3": {**_DIMS, "no_rope_layers": [1, 0, 1]},
    "starcoder2": {**_DIMS, **_WINDOW},
    "stablelm": _DIMS,
    "gpt2": _GPT,
    "gpt_neox": _DIMS,
    "opt": {**_DIMS, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3},
    "falcon": {
        **{k: v for k, v in _DIMS.items() if k != "head_dim"},
        "alibi": False,
        "new_decoder_architecture": True,
        "num_kv_heads": 2,
    },
    "gptj": {**_GPT, "rotary_dim": 4},
    "gpt_oss": {**_DIMS, **_MIXED, **_EXPERTS},
}
"""Families whose rows can hold a tree (spec: engines.md §3.3), with windows that the tests cross."""

OTHER: dict[str, dict[str, Any]] = {
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 3, "n_head": 4, "initializer_range": 0.3},
    "mpt": {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 512},
    "mamba": {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8},
    "jamba": {**_DIMS, **_EXPERTS, "use_mamba_kernels": False, "num_hidden_layers": 9, "mamba_d_state": 8},
    "falcon_h1": {**_DIMS, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
}
"""Families that must land on another level: ALiBi, recurrent, hybrid."""

EAGER_ONLY = ("bloom", "gpt_oss", "gptj", "mamba", "mpt")
"""Families without sdpa in transformers 5.19."""


def make_family(name: str, attention: str = "sdpa") -> Any:
    """A random float32 model of a family in eval mode, weights spread enough that every token matters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    options = {**TREE, **OTHER}[name]
    config = AutoConfig.for_model(name, **options)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32).eval()
