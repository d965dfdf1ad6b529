"""A small config.json of every family at three shapes: as published, odd heads, and beyond the first context.

The second shape has heads that are not hidden / heads wide, one head of keys and values, and the head tied the
other way round; the third has another number of layers and experts, and rotary stretched past its threshold.
"""

from typing import Any

BASE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_theta": 100.0,
}
GROUPED = BASE | {"num_key_value_heads": 2, "head_dim": 8}
ODD = {"num_key_value_heads": 1, "head_dim": 12, "tie_word_embeddings": True}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
ALPHA = {
    "type": "dynamic",
    "alpha": 10.0,
    "factor": 1.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
LATENT = BASE | {
    "q_lora_rank": 12,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 6,
    "v_head_dim": 10,
    "num_key_value_heads": 4,
}
DEEPSEEK = LATENT | {
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
}
MANY = {
    "n_routed_experts": 20,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
}
DEEPSEEK_YARN = {
    "rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 1.3, "beta_fast": 32.0, "beta_slow": 1.0}
}
QWEN_MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
STEP = {"decoder_sparse_step": 2, "num_experts": 6, "num_hidden_layers": 4, "mlp_only_layers": [3]}
SLIDING = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
ERNIE_MOE = {
    "moe_num_experts": 8,
    "moe_k": 2,
    "moe_intermediate_size": 16,
    "moe_num_shared_experts": 1,
    "moe_layer_start_index": 1,
    "moe_layer_end_index": 2,
    "moe_layer_interval": 1,
}
HY3 = {
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "num_shared_experts": 1,
    "moe_intermediate_size": 16,
    "router_scaling_factor": 2.826,
}
FLASH = {
    "head_dim": 24,
    "v_head_dim": 16,
    "attention_value_scale": 0.707,
    "sliding_window": 7,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.334},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.334},
    },
}
GPT_OSS = {
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "sliding_window": 7,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
HUNYUAN_MOE = {"num_experts": 8, "moe_topk": 2, "num_shared_expert": 1, "use_mixed_mlp_moe": True}
INDEXER = {"index_topk": 9, "index_n_heads": 16, "index_head_dim": 10, "first_k_dense_replace": 1}
MISTRAL4_ROPE = DEEPSEEK_YARN["rope_scaling"] | {
    "rope_theta": 100.0,
    "llama_4_scaling_beta": 0.1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
PANGU_MOE = {key: value for key, value in DEEPSEEK.items() if key not in ("n_group", "topk_group")}

# architecture → model_type and the three shapes
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "DeepseekV2ForCausalLM": (
        "deepseek_v2",
        DEEPSEEK
        | {
            "q_lora_rank": None,
            "topk_method": "greedy",
            "n_shared_experts": 2,
            "n_group": None,
            "topk_group": None,
        },
        DEEPSEEK | {"topk_method": "group_limited_greedy", "tie_word_embeddings": True},
        DEEPSEEK | MANY | {"topk_method": "greedy", "num_hidden_layers": 2} | DEEPSEEK_YARN,
    ),
    "DeepseekV3ForCausalLM": (
        "deepseek_v3",
        DEEPSEEK,
        DEEPSEEK | {"q_lora_rank": None, "tie_word_embeddings": True, "attention_bias": True},
        DEEPSEEK | MANY | {"num_hidden_layers": 2} | DEEPSEEK_YARN,
    ),
    "DeepseekV32ForCausalLM": (
        "deepseek_v32",
        DEEPSEEK | INDEXER,
        DEEPSEEK | INDEXER | {"tie_word_embeddings": True, "index_topk": 3},
        DEEPSEEK | INDEXER | MANY | {"num_hidden_layers": 2} | DEEPSEEK_YARN,
    ),
    "LlamaForCausalLM": (
        "llama",
        GROUPED,
        GROUPED | ODD | {"attention_bias": True, "mlp_bias": True},
        GROUPED | {"num_hidden_layers": 2, "rope_scaling": LLAMA3},
    ),
    "MistralForCausalLM": (
        "mistral",
        GROUPED | {"sliding_window": None},
        GROUPED | ODD | {"sliding_window": 7},
        GROUPED | {"num_hidden_layers": 2, "sliding_window": None, "rope_scaling": YARN},
    ),
    "MixtralForCausalLM": (
        "mixtral",
        GROUPED | {"num_local_experts": 8, "num_experts_per_tok": 2},
        GROUPED | ODD | {"num_local_experts": 4, "num_experts_per_tok": 1, "sliding_window": 7},
        GROUPED | {"num_local_experts": 6, "num_experts_per_tok": 3, "rope_scaling": YARN},
    ),
    "Mistral4ForCausalLM": (
        "mistral4",
        DEEPSEEK | {"first_k_dense_replace": 0, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0},
        DEEPSEEK | {"q_lora_rank": None, "tie_word_embeddings": True},
        DEEPSEEK | MANY | {"rope_parameters": MISTRAL4_ROPE},
    ),
    "Qwen2ForCausalLM": (
        "qwen2",
        GROUPED | {"head_dim": 8},
        GROUPED | {"num_key_value_heads": 1, "tie_word_embeddings": True} | SLIDING,
        GROUPED | {"num_hidden_layers": 2, "rope_scaling": YARN},
    ),
    "Qwen2MoeForCausalLM": (
        "qwen2_moe",
        GROUPED | QWEN_MOE | {"shared_expert_intermediate_size": 24},
        GROUPED
        | QWEN_MOE
        | SLIDING
        | {
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
            "norm_topk_prob": True,
            "shared_expert_intermediate_size": 16,
        },
        GROUPED
        | QWEN_MOE
        | STEP
        | {"shared_expert_intermediate_size": 40, "qkv_bias": False, "rope_scaling": YARN},
    ),
    "Qwen3ForCausalLM": (
        "qwen3",
        GROUPED,
        GROUPED | ODD | {"attention_bias": True} | SLIDING,
        GROUPED | {"num_hidden_layers": 2, "rope_scaling": YARN},
    ),
    "Qwen3MoeForCausalLM": (
        "qwen3_moe",
        GROUPED | QWEN_MOE | {"norm_topk_prob": True},
        GROUPED | QWEN_MOE | ODD | {"attention_bias": True},
        GROUPED | QWEN_MOE | STEP | {"rope_scaling": YARN},
    ),
    "Ernie4_5ForCausalLM": (
        "ernie4_5",
        GROUPED | {"tie_word_embeddings": True},
        GROUPED | ODD | {"tie_word_embeddings": False, "use_bias": True},
        GROUPED | {"num_hidden_layers": 2, "rope_scaling": YARN},
    ),
    "Ernie4_5_MoeForCausalLM": (
        "ernie4_5_moe",
        GROUPED | ERNIE_MOE | {"tie_word_embeddings": True},
        GROUPED
        | ERNIE_MOE
        | {
            "num_key_value_heads": 1,
            "num_nextn_predict_layers": 2,
            "moe_num_experts": 6,
            "moe_num_shared_experts": 0,
            "moe_layer_start_index": 0,
        },
        GROUPED
        | ERNIE_MOE
        | {"num_hidden_layers": 5, "moe_layer_end_index": 3, "moe_layer_interval": 2, "rope_scaling": YARN},
    ),
    "HunYuanDenseV1ForCausalLM": (
        "hunyuan_v1_dense",
        GROUPED | {"use_qk_norm": True},
        GROUPED | ODD | {"attention_bias": True},
        GROUPED | {"num_hidden_layers": 2, "rope_scaling": ALPHA},
    ),
    "HunYuanMoEV1ForCausalLM": (
        "hunyuan_v1_moe",
        GROUPED | HUNYUAN_MOE,
        GROUPED | ODD | HUNYUAN_MOE | {"num_experts": 6},
        GROUPED | HUNYUAN_MOE | {"moe_topk": [3, 3, 3], "rope_scaling": ALPHA},
    ),
    "HYV3ForCausalLM": (
        "hy_v3",
        GROUPED | HY3,
        GROUPED | ODD | HY3 | {"num_experts": 6, "mlp_layer_types": ["sparse", "dense", "sparse"]},
        GROUPED | HY3 | {"num_experts_per_tok": 3, "num_shared_experts": 2, "rope_scaling": YARN},
    ),
    "MiMoForCausalLM": (
        "mimo",
        GROUPED | {"head_dim": 8, "num_nextn_predict_layers": 1},
        GROUPED | {"num_key_value_heads": 1, "tie_word_embeddings": True},
        GROUPED | {"num_hidden_layers": 2, "rope_scaling": YARN},
    ),
    "MiMoV2FlashForCausalLM": (
        "mimo_v2_flash",
        GROUPED | FLASH,
        GROUPED
        | FLASH
        | {"num_key_value_heads": 1, "tie_word_embeddings": True, "attention_bias": True, "v_head_dim": 12},
        GROUPED
        | FLASH
        | {
            "n_routed_experts": 12,
            "n_group": 3,
            "topk_group": 2,
            "sliding_window": 3,
            "attention_value_scale": None,
        },
    ),
    "PanguEmbeddedForCausalLM": (
        "PanguEmbedded",
        GROUPED | {"bias": True},
        GROUPED | ODD | {"bias": False},
        GROUPED | {"num_hidden_layers": 2, "rope_scaling": YARN, "bias": True},
    ),
    "PanguUltraMoEForCausalLM": (
        "pangu_ultra_moe",
        PANGU_MOE | {"sandwich_norm": True, "num_nextn_predict_layers": 1},
        PANGU_MOE | {"sandwich_norm": True, "router_enable_expert_bias": True, "tie_word_embeddings": True},
        PANGU_MOE | {"sandwich_norm": False, "n_routed_experts": 6, "num_hidden_layers": 2},
    ),
    "GptOssForCausalLM": (
        "gpt_oss",
        GROUPED | GPT_OSS | {"rope_scaling": YARN | {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}},
        GROUPED | GPT_OSS | ODD | {"num_local_experts": 6, "attention_bias": False},
        GROUPED
        | GPT_OSS
        | {"num_experts_per_tok": 3, "sliding_window": 3, "swiglu_limit": 0.5, "rope_scaling": YARN},
    ),
}

# the source that a family is checked against where transformers has none: see test_parity_reduced
REDUCED = ("MiMoForCausalLM", "PanguEmbeddedForCausalLM", "PanguUltraMoEForCausalLM")

SHAPES = [(architecture, shape) for architecture in FAMILIES for shape in range(3)]


def config_json(architecture: str, shape: int) -> dict[str, Any]:
    """The contents of a config.json; `shape` from 0 to 2."""
    model_type, *shapes = FAMILIES[architecture]
    return {"architectures": [architecture], "model_type": model_type, **shapes[shape]}
