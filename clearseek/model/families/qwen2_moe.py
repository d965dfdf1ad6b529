"""Qwen2-MoE (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B): a shared expert behind a gate, beside softmax-routed ones."""

from pathlib import Path
from typing import Any

from clearseek.config.model import ModelConfig
from clearseek.model.families import sliding
from clearseek.model.families.family import GROUPED, SWITCHES, Family, Keys, Published
from clearseek.model.families.published_config import dense_fields, integers

EXPERTS: Keys = {
    "num_routed_experts": ("num_experts", "num_local_experts"),
    "num_experts_per_token": "num_experts_per_tok",
    "moe_intermediate_size": "moe_intermediate_size",
    "normalises_gates": "norm_topk_prob",
}


def read_dense(published: Published, path: Path) -> dict[str, Any]:
    """Dense layers: those named, and those that the step between sparse ones passes over."""
    named, step = integers(published, "mlp_only_layers", path), published.get("decoder_sparse_step") or 1
    count = published.get("num_hidden_layers")
    if not isinstance(count, int) or not isinstance(step, int):
        return {}
    return dense_fields([i for i in range(min(count, 2**11)) if i in named or (i + 1) % step])


def write_dense(config: ModelConfig) -> dict[str, Any]:
    """Every dense layer by name."""
    dense = [index for index in range(config.num_layers) if not config.is_moe_layer(index)]
    return {"decoder_sparse_step": 1, "mlp_only_layers": dense}


def read(published: Published, path: Path) -> dict[str, Any]:
    """Dense layers and windows, which here are every second layer's of the first ones."""
    count, last = published.get("num_hidden_layers"), published.get("max_window_layers", 28)
    kinds = []
    if published.get("use_sliding_window") and isinstance(count, int) and isinstance(last, int):
        kinds = [sliding.KINDS[bool((index + 1) % 2) and index < last] for index in range(min(count, 2**11))]
    return read_dense(published, path) | sliding.read_layer_types(published, path, kinds)


FAMILY = Family(
    name="qwen2_moe",
    architecture="Qwen2MoeForCausalLM",
    keys=GROUPED
    | EXPERTS
    | {"qkv_bias": "qkv_bias", "shared_intermediate_size": "shared_expert_intermediate_size"},
    implied={
        "router_scores": "softmax",
        "has_selection_bias": False,
        "has_shared_gate": True,
        "num_shared_experts": 1,
    },
    defaults={"qkv_bias": True, "norm_topk_prob": False},
    switches=SWITCHES,
    names={".mlp.shared_experts.": ".mlp.shared_expert."},
    read=read,
    write=lambda config: write_dense(config) | sliding.write_switched(config),
    more=sliding.FIELDS | {"num_dense_layers", "dense_layers"},
)
