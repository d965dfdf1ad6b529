"""Hunyuan with experts (Tencent, A13B): softmax-routed experts beside one that is always on."""

from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.families.family import Family, Published
from clearseek.model.families.hunyuan_v1_dense import HUNYUAN_SWITCHES, KEYS, NAMES
from clearseek.model.families.published_config import uniform

_NUMBERS = {"num_routed_experts": "num_experts", "num_experts_per_token": "moe_topk"}


def read(published: Published, path: Path) -> dict[str, Any]:
    """Numbers that may be lists with one for each layer; experts and the shared one are as wide as dense layers."""
    found = {ours: uniform(published, theirs, path) for ours, theirs in _NUMBERS.items()}
    width = published.get("intermediate_size")
    for key, wanted in (("moe_intermediate_size", width), ("num_shared_expert", 1)):
        if uniform(published, key, path) not in (None, wanted):
            raise InputError(f"{path}: {key} = {published[key]!r} is not supported; only {wanted!r} is")
    return found | {"moe_intermediate_size": width}


def write(config: ModelConfig) -> dict[str, Any]:
    """One number for all layers."""
    if config.moe_intermediate_size != config.intermediate_size:
        raise InputError(
            f"moe_intermediate_size ({config.moe_intermediate_size}) must be intermediate_size "
            f"({config.intermediate_size}) in family hunyuan_v1_moe"
        )
    return {theirs: getattr(config, ours) for ours, theirs in _NUMBERS.items()}


FAMILY = Family(
    name="hunyuan_v1_moe",
    architecture="HunYuanMoEV1ForCausalLM",
    keys=KEYS,
    implied={
        "qk_norm": "after_rotary",
        "router_scores": "softmax",
        "has_selection_bias": False,
        "num_shared_experts": 1,
    },
    defaults={"attention_bias": False, "rms_norm_eps": 1e-5},
    switches=HUNYUAN_SWITCHES | {"use_mixed_mlp_moe": True, "moe_layer_num_skipped": 0},
    names=NAMES | {".mlp.gate.": ".mlp.gate.wg.", ".mlp.shared_experts.": ".mlp.shared_mlp."},
    read=read,
    write=write,
    more=frozenset({*_NUMBERS, "moe_intermediate_size"}),
    scalings=frozenset({"ntk_alpha", "linear"}),
)
