"""Our families under llama.cpp's names: which architecture each is there, and under which keys its sizes stand.

A family is one row: its published config keys, and the key of GGUF that carries each. What can't be said in such a
row is in `metadata`; tensors are in `tensors`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clearseek.config.errors import InputError
from clearseek.model.families import FAMILIES

_COMMON = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
_GROUPED = {**_COMMON, "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length"}
_EXPERTS = {
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
}
_LATENT = {
    **_COMMON,
    "q_lora_rank": "attention.q_lora_rank",
    "kv_lora_rank": "attention.kv_lora_rank",
    "qk_rope_head_dim": "rope.dimension_count",
    "v_head_dim": "attention.value_length_mla",
    "n_routed_experts": "expert_count",
    "n_shared_experts": "expert_shared_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "first_k_dense_replace": "leading_dense_block_count",
    "n_group": "expert_group_count",
    "topk_group": "expert_group_used_count",
    "routed_scaling_factor": "expert_weights_scale",
    "norm_topk_prob": "expert_weights_norm",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A family as llama.cpp knows it.

    `keys` maps published config keys to GGUF's, without the architecture in front. `granted` are published
    settings that it takes for granted, so that others are refused. `turns_pairs`: rotary turns neighbours there and
    halves in what is published, so that queries' and keys' rows change places. `has_biases`: it reads those of
    maps; `bias_keys` are published keys that say whether there are any, each with a tensor that is there if so.
    `has_windows`: it has layers that see a window only. `table`: the architecture whose names of tensors are the same,
    for where the gguf library has none of this one.
    """

    name: str
    keys: Mapping[str, str]
    granted: Mapping[str, Any] = field(default_factory=dict)
    turns_pairs: bool = False
    has_biases: bool = False
    bias_keys: Mapping[str, str] = field(default_factory=dict)
    has_windows: bool = False
    table: str = ""


ARCHITECTURES = {
    "llama": Architecture(
        "llama",
        _GROUPED,
        turns_pairs=True,
        has_biases=True,
        bias_keys={"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_gate.bias"},
    ),
    "mistral": Architecture("llama", _GROUPED, turns_pairs=True),
    "mixtral": Architecture(
        "llama",
        {**_GROUPED, "num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
        turns_pairs=True,
    ),
    "qwen2": Architecture("qwen2", _GROUPED, has_biases=True),
    "qwen2_moe": Architecture(
        "qwen2moe",
        {**_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": "expert_shared_feed_forward_length"},
        granted={"norm_topk_prob": False},
        has_biases=True,
    ),
    "qwen3": Architecture("qwen3", _GROUPED),
    "qwen3_moe": Architecture("qwen3moe", {**_GROUPED, **_EXPERTS}, granted={"norm_topk_prob": True}),
    "deepseek_v2": Architecture("deepseek2", _LATENT),
    "deepseek_v3": Architecture("deepseek2", _LATENT, granted={"rope_interleave": True}),
    "deepseek_v32": Architecture(
        "deepseek32",
        {
            **_LATENT,
            "index_n_heads": "attention.indexer.head_count",
            "index_head_dim": "attention.indexer.key_length",
            "index_topk": "attention.indexer.top_k",
        },
        table="glm-dsa",
    ),
    "mistral4": Architecture("mistral4", _LATENT, granted={"rope_interleave": True}),
    "ernie4_5": Architecture("ernie4_5", _GROUPED),
    "ernie4_5_moe": Architecture(
        "ernie4_5-moe",
        {
            **_GROUPED,
            "moe_num_experts": "expert_count",
            "moe_k": "expert_used_count",
            "moe_intermediate_size": "expert_feed_forward_length",
            "moe_num_shared_experts": "expert_shared_count",
            "moe_layer_interval": "interleave_moe_layer_step",
            "moe_layer_start_index": "leading_dense_block_count",
        },
    ),
    "hunyuan_v1_dense": Architecture("hunyuan-dense", _GROUPED),
    "hunyuan_v1_moe": Architecture(
        "hunyuan-moe",
        {
            **_GROUPED,
            "num_experts": "expert_count",
            "moe_topk": "expert_used_count",
            "num_shared_expert": "expert_shared_count",
        },
    ),
    "hy_v3": Architecture(
        "hy_v3", {**_GROUPED, **_EXPERTS, "router_scaling_factor": "expert_weights_scale"}, table="dots1"
    ),
    "mimo_v2_flash": Architecture(
        "mimo2",
        {
            **_GROUPED,
            "v_head_dim": "attention.value_length",
            "attention_value_scale": "attention.value_scale",
            "sliding_window": "attention.sliding_window",
            "n_routed_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "moe_intermediate_size": "expert_feed_forward_length",
            "n_group": "expert_group_count",
            "topk_group": "expert_group_used_count",
        },
        granted={"attention_bias": False, "tie_word_embeddings": False, "routed_scaling_factor": 1.0},
        has_windows=True,
    ),
    "gpt_oss": Architecture(
        "gpt-oss",
        {
            **_GROUPED,
            "num_local_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "sliding_window": "attention.sliding_window",
        },
        granted={
            "attention_bias": True,
            "tie_word_embeddings": False,
            "swiglu_limit": 7.0,
            "swiglu_alpha": 1.702,
        },
        has_biases=True,
        has_windows=True,
    ),
    "PanguEmbedded": Architecture(
        "pangu-embedded",
        _GROUPED,
        granted={"bias": True, "mlp_bias": False},
        has_biases=True,
    ),
}


def architecture_of(family: str) -> Architecture:
    """The row of a family; raises InputError for one that llama.cpp has no architecture for."""
    if family not in ARCHITECTURES:
        known = ", ".join(name for name in ARCHITECTURES if name in FAMILIES)
        raise InputError(
            f"family {family} can't be written as GGUF: llama.cpp has no architecture for it; known ones: {known}. "
            "Use --to hf"
        )
    return ARCHITECTURES[family]
