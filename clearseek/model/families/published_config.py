"""A published config.json: read key by key into our ModelConfig, and written back.

What a key would switch on in other implementations and we have not built is refused by name, never ignored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig, YarnScaling
from clearseek.model.sources import check_quantisation

# our name → the published one, in every family
COMMON = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "rms_norm_eps": "rms_norm_eps",
    "tie_word_embeddings": "tie_word_embeddings",
    "initializer_range": "initializer_range",
}
OPTIONAL = ("rms_norm_eps", "tie_word_embeddings", "initializer_range")
# the only setting we have of each switch; absent or null means the same
SWITCHES = {"hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0}

_YARN_KEYS = frozenset(YarnScaling.model_fields)


def read_keys(family: str, published: Mapping[str, Any], names: Mapping[str, str], path: Path) -> ModelConfig:
    """The ModelConfig of `family` from the keys that `names` maps; raises InputError naming file and key."""
    missing = [theirs for ours, theirs in names.items() if theirs not in published and ours not in OPTIONAL]
    if missing:
        raise InputError(f"{path}: {', '.join(missing)} missing; a {family} config.json has to give them")
    values = {ours: published.get(theirs) for ours, theirs in names.items()}
    values = {ours: value for ours, value in values.items() if value is not None}
    values.update(read_rope(published, path))
    try:
        return ModelConfig.model_validate({"family": family, **values})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(names.get(str(part), str(part)) for part in first["loc"])
        place = f"{key}: " if key else ""
        raise InputError(f"{path}: {place}{first['msg'].removeprefix('Value error, ')}") from error


def write_keys(config: ModelConfig, names: Mapping[str, str]) -> dict[str, Any]:
    """The published keys of a config, with the rotary ones."""
    return {theirs: getattr(config, ours) for ours, theirs in names.items()} | write_rope(config)


def check_switches(published: Mapping[str, Any], supported: Mapping[str, Any], path: Path) -> None:
    """Raise InputError for the first switch that is set to something we have not built."""
    for key, setting in supported.items():
        value = published.get(key)
        if value is not None and value != setting:
            raise InputError(f"{path}: {key} = {value!r} is not supported; only {setting!r} is")
    if published.get("quantization_config") is not None:
        check_quantisation(published["quantization_config"], path)


def read_rope(published: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` from either published layout; `rope_parameters` is the newer one."""
    rope: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        table = published.get(key) or {}
        if not isinstance(table, dict):
            raise InputError(f"{path}: {key} = {table!r} has to be an object or null")
        rope |= table
    theta = rope.pop("rope_theta", None) or published.get("rope_theta")
    found: dict[str, Any] = {} if theta is None else {"rope_theta": theta}
    kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    check_switches({**published, **rope}, {"partial_rotary_factor": 1.0}, path)
    rope.pop("partial_rotary_factor", None)
    if kind == "default":
        return found
    if kind != "yarn":
        raise InputError(f"{path}: rope type {kind!r} is not supported; known ones: default, yarn")
    return found | {"rope_scaling": _read_yarn(rope, published, path)}


def _read_yarn(rope: dict[str, Any], published: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """YaRN's table for ModelConfig, with the published formats' defaults."""
    truncate, attention_factor = rope.pop("truncate", True), rope.pop("attention_factor", None)
    if attention_factor is not None:
        raise InputError(f"{path}: rope_scaling.attention_factor is not supported; leave it to mscale")
    if not truncate:
        raise InputError(f"{path}: rope_scaling.truncate = False is not supported; only True is")
    if unknown := rope.keys() - _YARN_KEYS:
        raise InputError(f"{path}: rope_scaling.{min(unknown)} is not supported; leave it out")
    given = {key: value for key, value in rope.items() if value is not None}
    given.setdefault("original_max_position_embeddings", published.get("max_position_embeddings"))
    if "factor" not in given:
        raise InputError(f"{path}: rope_scaling.factor missing; YaRN needs it")
    # absent here means no temperature on the softmax, where a recipe's default is DeepSeek-V3's
    return {"mscale": 1.0, "mscale_all_dim": 0.0} | given


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """The rotary keys in the layout that every version of the common libraries reads."""
    if config.rope_scaling is None:
        return {"rope_theta": config.rope_theta, "rope_scaling": None}
    scaling: YarnScaling = config.rope_scaling
    return {
        "rope_theta": config.rope_theta,
        "rope_scaling": {"type": "yarn", "rope_type": "yarn", **scaling.model_dump()},
    }
