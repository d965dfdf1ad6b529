"""MiMo-V2-Flash (Xiaomi): windows with sinks in five of six layers, and DeepSeek-V3's router, nothing shared.

Its config.json comes in two forms: Xiaomi's own, which vLLM reads, and that of transformers. Both are written.
"""

from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.model import LayerType, ModelConfig
from clearseek.model.families import sliding
from clearseek.model.families.family import GROUPED, SWITCHES, Family, Published
from clearseek.model.families.published_config import (
    dense_fields,
    dense_from_types,
    integers,
    mlp_layer_types,
)

_SHARE, _THETAS = 0.334, {"full_attention": 5_000_000.0, "sliding_attention": 10_000.0}
# of layers with a window → of the others, which ours can't tell apart
_SAME = {
    "swa_num_attention_heads": "num_attention_heads",
    "swa_head_dim": "head_dim",
    "swa_v_head_dim": "v_head_dim",
}


def read(published: Published, path: Path) -> dict[str, Any]:
    """What differs between the two types of layers."""
    for theirs, other in _SAME.items():
        if (value := published.get(theirs)) is not None and value != published.get(other):
            raise InputError(f"{path}: {theirs} = {value!r} is not supported; only {other} is")
    dense = dense_from_types(published, path) or _read_dense(published, path)
    kinds = _read_kinds(published, path)
    found = dense | sliding.read_layer_types(published, path, kinds) | _read_rotary(published, path)
    if isinstance(size := published.get("sliding_window_size"), int):
        found["sliding_window"] = size + 1  # positions before a token's own
    heads = published.get("num_key_value_heads")
    sliding_heads = published.get("swa_num_key_value_heads") or (
        2 * heads if isinstance(heads, int) else None
    )
    return (
        found
        | {"sliding_window": published.get("sliding_window"), "sliding_key_value_heads": sliding_heads}
        | found
    )


def _read_dense(published: Published, path: Path) -> dict[str, Any]:
    sparse = _each_layer(published, "moe_layer_freq", path)
    return dense_fields([index for index, is_sparse in enumerate(sparse) if not is_sparse] if sparse else [0])


def _read_kinds(published: Published, path: Path) -> list[str]:
    if has_window := _each_layer(published, "hybrid_layer_pattern", path):
        return [sliding.KINDS[number] for number in has_window]
    count = published.get("num_hidden_layers")
    numbers = range(min(count, 2**11)) if isinstance(count, int) else range(0)
    return [sliding.KINDS[index > 0 and (index + 1) % 6 != 0] for index in numbers]


def _each_layer(published: Published, key: str, path: Path) -> list[int]:
    """Xiaomi's lists of a 0 or 1 for each layer; empty where there is none."""
    found, count = integers(published, key, path), published.get("num_hidden_layers")
    if any(number not in (0, 1) for number in found):
        raise InputError(f"{path}: {key} = {found!r} is not supported; only a list of 0 and 1 is")
    if found and isinstance(count, int) and len(found) < count:
        raise InputError(f"{path}: {key} ({len(found)}) must name num_hidden_layers ({count})")
    return found[:count] if isinstance(count, int) else found


def _stated_tables(published: Published) -> dict[str, dict[str, Any]]:
    """Xiaomi's own keys as transformers' two tables."""
    thetas = (published.get(key) for key in ("rope_theta", "swa_rope_theta"))
    share = published.get("partial_rotary_factor", _SHARE)
    return {
        kind: {"rope_theta": theta or otherwise, "partial_rotary_factor": share}
        for (kind, otherwise), theta in zip(_THETAS.items(), thetas, strict=True)
    }


def _read_rotary(published: Published, path: Path) -> dict[str, Any]:
    tables = published.get("rope_parameters") or _stated_tables(published)
    found_tables = [tables.get(kind) for kind in sliding.KINDS] if isinstance(tables, dict) else []
    both = [table for table in found_tables if isinstance(table, dict)]
    if len(both) < len(sliding.KINDS):
        raise InputError(
            f"{path}: rope_parameters = {tables!r} has to hold one table for each of layer_types"
        )
    share, other = (table.get("partial_rotary_factor", _SHARE) for table in both)
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise InputError(f"{path}: partial_rotary_factor = {share!r} has to be a number above 0 and up to 1")
    if other != share or any(table.get("rope_type", "default") != "default" for table in both):
        raise InputError(
            f"{path}: rope_parameters = {tables!r} is not supported; only plain ones of one share are"
        )
    found = {"rope_theta": both[0].get("rope_theta"), "sliding_rope_theta": both[1].get("rope_theta")}
    head = published.get("head_dim")
    if isinstance(head, int):
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
    window = {"sliding_window": config.sliding_window, "rope_parameters": tables}
    return lists | window | _write_own(config, kinds, thetas, share)


def _write_own(
    config: ModelConfig, kinds: list[LayerType], thetas: tuple[float, float], share: float
) -> dict[str, Any]:
    """The same under Xiaomi's keys."""
    return {
        "layernorm_epsilon": config.rms_norm_eps,
        "hybrid_layer_pattern": [sliding.KINDS.index(kind) for kind in kinds],
        "moe_layer_freq": [int(config.is_moe_layer(index)) for index in range(config.num_layers)],
        "rope_theta": thetas[0],
        "swa_rope_theta": thetas[1],
        "partial_rotary_factor": share,
        "sliding_window_size": config.sliding_window and config.sliding_window - 1,
        "swa_num_attention_heads": config.num_heads,
        "swa_num_key_value_heads": config.kv_heads_of("sliding_attention"),
        "swa_head_dim": config.head_size,
        "swa_v_head_dim": config.value_size,
    }


FAMILY = Family(
    name="mimo_v2_flash",
    architecture="MiMoV2FlashForCausalLM",
    keys=GROUPED
    | {
        "rms_norm_eps": ("rms_norm_eps", "layernorm_epsilon"),
        "v_head_dim": "v_head_dim",
        "qkv_bias": "attention_bias",
        "value_scale": "attention_value_scale",
        "num_routed_experts": "n_routed_experts",
        "num_experts_per_token": "num_experts_per_tok",
        "moe_intermediate_size": "moe_intermediate_size",
        "num_expert_groups": "n_group",
        "num_limited_groups": "topk_group",
        "routed_scaling_factor": "routed_scaling_factor",
        "num_mtp_layers": "num_nextn_predict_layers",
    },
    implied={"sinks": ("sliding_attention",), "mtp_kind": "mimo_v2"},
    defaults={
        "attention_bias": False,
        "attention_value_scale": 1.0,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "rms_norm_eps": 1e-5,
        "num_nextn_predict_layers": 0,
    },
    switches=SWITCHES
    | {
        "norm_topk_prob": True,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "n_shared_experts": None,
        "add_full_attention_sink_bias": False,
        "add_swa_attention_sink_bias": True,
    },
    names={".self_attn.sinks": ".self_attn.attention_sink_bias"},
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
