"""DeepSeek-V3, R1 and V3.1: latent attention, experts, and multi-token modules as layers beyond the last."""

from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.families.family import LATENT, SWITCHES, Family, Keys, Published

BIASES = {"qkv_bias": "attention_bias", "out_bias": "attention_bias"}
EXPERTS: Keys = {
    "num_routed_experts": "n_routed_experts",
    "num_shared_experts": "n_shared_experts",
    "num_experts_per_token": "num_experts_per_tok",
    "moe_intermediate_size": "moe_intermediate_size",
    "num_dense_layers": "first_k_dense_replace",
    "num_expert_groups": "n_group",
    "num_limited_groups": "topk_group",
    "routed_scaling_factor": "routed_scaling_factor",
}
ROUTER = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True, "moe_layer_freq": 1}


def read(published: Published, path: Path) -> dict[str, Any]:
    """A model without experts, and the check that attention is latent for every head."""
    heads, kv_heads = published.get("num_attention_heads"), published.get("num_key_value_heads")
    if kv_heads not in (None, heads):
        raise InputError(f"{path}: num_key_value_heads = {kv_heads} is not supported; only {heads}")
    return {} if published.get("n_routed_experts") else dense()


def dense() -> dict[str, Any]:
    """The fields of a model whose layers are all dense."""
    return {
        "num_dense_layers": 0,
        "num_experts_per_token": 0,
        "num_shared_experts": 0,
        "moe_intermediate_size": 0,
    }


def write(config: ModelConfig) -> dict[str, Any]:
    """Without experts every layer is one of the first, dense ones."""
    heads = {"num_key_value_heads": config.num_heads}
    if config.num_routed_experts:
        return heads
    return heads | {"first_k_dense_replace": config.num_layers + config.num_mtp_layers}


FAMILY = Family(
    name="deepseek_v3",
    architecture="DeepseekV3ForCausalLM",
    keys=LATENT
    | BIASES
    | EXPERTS
    | {"num_mtp_layers": "num_nextn_predict_layers", "rotates_pairs": "rope_interleave"},
    defaults={
        "attention_bias": False,
        "rope_interleave": True,
        "num_nextn_predict_layers": 0,
        "n_group": 1,
        "topk_group": 1,
        "n_shared_experts": 0,
    },
    switches=SWITCHES | ROUTER,
    read=read,
    write=write,
)
