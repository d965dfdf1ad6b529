"""DeepSeek-V2 and V2-Lite: V3's attention under a softmax router whose groups are as good as their best expert."""

from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.families import deepseek_v3 as v3
from clearseek.model.families.family import LATENT, SWITCHES, Family, Published

_METHODS = ("greedy", "group_limited_greedy")
_GROUPS = ("num_expert_groups", "num_limited_groups")


def read(published: Published, path: Path) -> dict[str, Any]:
    """Groups count only where the router is limited to them."""
    method = published.get("topk_method") or "greedy"
    if method not in _METHODS:
        raise InputError(
            f"{path}: topk_method = {method!r} is not supported; only {' and '.join(_METHODS)} are"
        )
    found = v3.read(published, path)
    if method == "greedy":
        return found | dict.fromkeys(_GROUPS, 1)
    return found | {
        "num_expert_groups": published.get("n_group"),
        "num_limited_groups": published.get("topk_group"),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    """The router's method with its groups."""
    is_grouped = config.num_expert_groups > 1
    groups = {"n_group": config.num_expert_groups, "topk_group": config.num_limited_groups}
    return v3.write(config) | {"topk_method": _METHODS[is_grouped], **groups}


FAMILY = Family(
    name="deepseek_v2",
    architecture="DeepseekV2ForCausalLM",
    keys=LATENT
    | v3.BIASES
    | {k: v for k, v in v3.EXPERTS.items() if k not in _GROUPS}
    | {"mlp_bias": "mlp_bias"},
    implied={
        "rotates_pairs": True,
        "router_scores": "softmax",
        "has_selection_bias": False,
        "normalises_gates": False,
        "group_score": "best",
    },
    defaults={
        "attention_bias": False,
        "mlp_bias": False,
        "n_shared_experts": 0,
        "routed_scaling_factor": 1.0,
        "first_k_dense_replace": 0,
    },
    switches=SWITCHES | {"scoring_func": "softmax", "norm_topk_prob": False, "moe_layer_freq": 1},
    read=read,
    write=write,
    more=frozenset(_GROUPS),
)
