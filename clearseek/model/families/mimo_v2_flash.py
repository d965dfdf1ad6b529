"""MiMo-V2-Flash (Xiaomi): windows with sinks in five of six layers, and DeepSeek-V3's router, nothing shared."""

from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.families import sliding
from clearseek.model.families.family import GROUPED, SWITCHES, Family, Published
from clearseek.model.families.published_config import dense_from_types, mlp_layer_types

_SHARE, _THETAS = 0.334, {"full_attention": 5_000_000.0, "sliding_attention": 10_000.0}


def read(published: Published, path: Path) -> dict[str, Any]:
    """What differs between the two types of layers."""
    count = published.get("num_hidden_layers")
    kinds = [_published_type(index) for index in range(min(count, 2**11))] if isinstance(count, int) else []
    dense = dense_from_types(published, path) or {"num_dense_layers": 1}
    found = dense | sliding.read_layer_types(published, path, kinds) | _read_rotary(published, path)
    if isinstance(size := published.get("sliding_window_size"), int):
        found["sliding_window"] = size + 1
    heads = published.get("num_key_value_heads")
    return found | ({"sliding_key_value_heads": 2 * heads} if isinstance(heads, int) else {})


def _published_type(index: int) -> str:
    return sliding.KINDS[index > 0 and (index + 1) % 6 != 0]


def _read_rotary(published: Published, path: Path) -> dict[str, Any]:
    tables = published.get("rope_parameters") or {kind: {"rope_theta": t} for kind, t in _THETAS.items()}
    found_tables = [tables.get(kind) for kind in sliding.KINDS] if isinstance(tables, dict) else []
    both = [table for table in found_tables if isinstance(table, dict)]
    if len(both) < len(sliding.KINDS):
        raise InputError(
            f"{path}: rope_parameters = {tables!r} has to hold one table for each of layer_types"
        )
    shares = {table.get("partial_rotary_factor", _SHARE) for table in both}
    if len(shares) > 1 or any(table.get("rope_type", "default") != "default" for table in both):
        raise InputError(
            f"{path}: rope_parameters = {tables!r} is not supported; only plain ones of one share are"
        )
    found = {"rope_theta": both[0].get("rope_theta"), "sliding_rope_theta": both[1].get("rope_theta")}
    head, share = published.get("head_dim"), shares.pop()
    if isinstance(head, int) and isinstance(share, float):
        found["rotary_head_dim"] = int(head * share)
    return {key: value for key, value in found.items() if value is not None}


def write(config: ModelConfig) -> dict[str, Any]:
    """The lists of layers and both rotary tables."""
    kinds = [config.layer_type(index) for index in range(config.num_layers)]
    thetas = config.rope_theta, config.sliding_rope_theta or config.rope_theta
    # halfway to the next whole dimension, so that no rounding takes one away
    share = 1.0 if config.rotary_dim == config.head_size else (config.rotary_dim + 0.5) / config.head_size
    tables = {
        kind: {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": share}
        for kind, theta in zip(sliding.KINDS, thetas, strict=True)
    }
    lists = {"layer_types": kinds, "mlp_layer_types": mlp_layer_types(config)}
    return lists | {"sliding_window": config.sliding_window, "rope_parameters": tables}


FAMILY = Family(
    name="mimo_v2_flash",
    architecture="MiMoV2FlashForCausalLM",
    keys=GROUPED
    | {
        "v_head_dim": "v_head_dim",
        "qkv_bias": "attention_bias",
        "value_scale": "attention_value_scale",
        "num_routed_experts": "n_routed_experts",
        "num_experts_per_token": "num_experts_per_tok",
        "moe_intermediate_size": "moe_intermediate_size",
        "num_expert_groups": "n_group",
        "num_limited_groups": "topk_group",
        "routed_scaling_factor": "routed_scaling_factor",
    },
    implied={"sinks": ("sliding_attention",)},
    defaults={
        "attention_bias": False,
        "attention_value_scale": 1.0,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "rms_norm_eps": 1e-5,
    },
    switches=SWITCHES
    | {
        "norm_topk_prob": True,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "n_shared_experts": None,
        "add_full_attention_sink_bias": False,
    },
    names={".self_attn.sinks": ".self_attn.attention_sink_bias"},
    unread=("model.mtp.*",),  # modules of another make: a dense layer with a window
    read=read,
    write=write,
    more=sliding.FIELDS
    | {
        "num_dense_layers",
        "dense_layers",
        "sliding_key_value_heads",
        "sliding_rope_theta",
        "rotary_head_dim",
    },
    scalings=frozenset(),
)
