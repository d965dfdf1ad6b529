"""Hy3 (Tencent): Qwen3's attention under DeepSeek-V3's router, the first layer dense.

Its multi-token module is DeepSeek-V3's with the main embedding and head (vLLM's `hy_v3_mtp.py`, "V3 shared weights");
what a checkpoint repeats of these beside it is not read.
"""

from pathlib import Path
from typing import Any

from clearseek.config.model import ModelConfig
from clearseek.model.families.family import GROUPED, SWITCHES, Family, Published
from clearseek.model.families.published_config import dense_from_types, mlp_layer_types


def read(published: Published, path: Path) -> dict[str, Any]:
    """Dense layers as a list or as a number; one where neither is given."""
    first = published.get("first_k_dense_replace")
    return dense_from_types(published, path) or {"num_dense_layers": 1 if first is None else first}


def write(config: ModelConfig) -> dict[str, Any]:
    """Dense layers as a list."""
    return {"mlp_layer_types": mlp_layer_types(config)}


FAMILY = Family(
    name="hy_v3",
    architecture="HYV3ForCausalLM",
    keys=GROUPED
    | {
        "qkv_bias": "attention_bias",
        "out_bias": "attention_bias",
        "mlp_bias": "mlp_bias",
        "num_routed_experts": ("num_experts", "num_local_experts"),
        "num_shared_experts": "num_shared_experts",
        "num_experts_per_token": "num_experts_per_tok",
        "moe_intermediate_size": "moe_intermediate_size",
        "routed_scaling_factor": "router_scaling_factor",
        "num_mtp_layers": "num_nextn_predict_layers",
    },
    implied={"qk_norm": "before_rotary", "mtp_kind": "hy_v3"},
    defaults={
        "attention_bias": False,
        "mlp_bias": False,
        "head_dim": 128,
        "router_scaling_factor": 2.826,
        "num_shared_experts": 1,
        "rms_norm_eps": 1e-5,
        "num_nextn_predict_layers": 0,
    },
    switches=SWITCHES,
    names={
        ".mlp.gate.weight": ".mlp.router.gate.weight",
        ".mlp.gate.e_score_correction_bias": ".mlp.expert_bias",
        ".mlp.shared_experts.": ".mlp.shared_mlp.",
    },
    unread=("model.layers.80.*", "model.layers.*.embed_tokens.*", "model.layers.*.shared_head.*"),
    read=read,
    write=write,
    more=frozenset({"num_dense_layers", "dense_layers"}),
    default_theta=11_158_840.0,
)
