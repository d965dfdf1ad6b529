"""openPangu Ultra MoE 718B (Huawei): DeepSeek-V3 with a norm on what each half of a layer adds."""

from pathlib import Path
from typing import Any

from clearseek.config.model import ModelConfig
from clearseek.model.families.deepseek_v3 import dense
from clearseek.model.families.family import COMMON, SWITCHES, Family, Published


def read(published: Published, path: Path) -> dict[str, Any]:
    """The norm of latents has the same floor as all others."""
    found = {} if published.get("n_routed_experts", published.get("num_routed_experts")) else dense()
    return found | {"latent_norm_eps": published.get("rms_norm_eps") or 1e-6}


def write(config: ModelConfig) -> dict[str, Any]:
    """Keys and values have as many heads as queries."""
    return {"num_key_value_heads": config.num_heads}


FAMILY = Family(
    name="pangu_ultra_moe",
    architecture="PanguUltraMoEForCausalLM",
    keys=COMMON
    | {
        "q_lora_rank": ("q_lora_rank", "attention_q_lora_dim"),
        "kv_lora_rank": ("kv_lora_rank", "attention_kv_lora_dim"),
        "qk_nope_head_dim": ("qk_nope_head_dim", "attention_qk_dim"),
        "qk_rope_head_dim": ("qk_rope_head_dim", "attention_qk_rope_dim"),
        "v_head_dim": ("v_head_dim", "attention_v_dim"),
        "num_routed_experts": ("n_routed_experts", "num_routed_experts"),
        "num_shared_experts": ("n_shared_experts", "num_shared_experts"),
        "num_experts_per_token": "num_experts_per_tok",
        "moe_intermediate_size": "moe_intermediate_size",
        "num_dense_layers": ("first_k_dense_replace", "num_dense_layers"),
        "routed_scaling_factor": "routed_scaling_factor",
        "has_selection_bias": "router_enable_expert_bias",
        "sandwich_norm": "sandwich_norm",
        "num_mtp_layers": ("num_nextn_predict_layers", "num_mtp_layers"),
        "rotates_pairs": "rope_interleave",
    },
    defaults={
        "router_enable_expert_bias": False,
        "sandwich_norm": False,
        "rope_interleave": True,
        "num_nextn_predict_layers": 0,
        "n_shared_experts": 0,
    },
    switches=SWITCHES | {"use_mhc": False, "param_sink_number": 0, "use_mome": False, "norm_topk_prob": True},
    read=read,
    write=write,
    more=frozenset({"latent_norm_eps"}),
    scalings=frozenset(),
    in_transformers=False,
)
