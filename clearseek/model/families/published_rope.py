"""The rotary part of a published config.json, in the older layout and in the newer one."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig, RopeScaling
from clearseek.model.families.family import Published

_YARN = (
    "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
    "attention_factor", "truncate",
)  # fmt: skip
# the published keys of each of our kinds
_KEYS = {
    "yarn": _YARN,
    "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
    "linear": ("factor",),
    "ntk_alpha": ("alpha",),
}
_ALPHA_FILLERS = {"factor": 1.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
_QUERY_BETA = "llama_4_scaling_beta"


def read_rope(published: Published, kinds: Collection[str], path: Path) -> dict[str, Any]:
    """Our `rope_theta` and `rope_scaling` from either layout, of one of `kinds`."""
    rope = rope_table(published, path)
    theta = rope.pop("rope_theta", None) or published.get("rope_theta")
    found: dict[str, Any] = {} if theta is None else {"rope_theta": theta}
    kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    if kind == "dynamic" and rope.get("alpha"):
        kind = "ntk_alpha"
        rope = {key: value for key, value in rope.items() if key not in _ALPHA_FILLERS}
    for source in (published, rope):
        factor = source.get("partial_rotary_factor")
        if factor not in (None, 1.0, _latent_share(published)):
            raise InputError(f"{path}: partial_rotary_factor = {factor!r} is not supported; only 1.0 is")
    rope.pop("partial_rotary_factor", None)
    if kind == "default":
        return found
    if kind not in kinds:
        known = ", ".join(["default", *sorted(kinds)])
        raise InputError(f"{path}: rope type {kind!r} is not supported; known ones: {known}")
    return found | {"rope_scaling": _read_scaling(kind, rope, published, path)}


def rope_table(published: Published, path: Path) -> dict[str, Any]:
    """Both layouts' tables as one; `rope_parameters` is the newer one."""
    rope: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        table = published.get(key) or {}
        if not isinstance(table, dict):
            raise InputError(f"{path}: {key} = {table!r} has to be an object or null")
        rope |= table
    return rope


def _latent_share(published: Published) -> float | None:
    """The part of a latent attention's head that turns, which newer files call partial_rotary_factor."""
    nope, rope = published.get("qk_nope_head_dim"), published.get("qk_rope_head_dim")
    if not isinstance(nope, int) or not isinstance(rope, int) or nope + rope < 1:
        return None
    return rope / (nope + rope)


def _read_scaling(kind: str, rope: dict[str, Any], published: Published, path: Path) -> dict[str, Any]:
    """A RopeScaling's table, with the published formats' defaults."""
    given = {key: value for key, value in rope.items() if value is not None}
    found: dict[str, Any] = {"kind": kind}
    if kind == "yarn":
        # absent here means no temperature on the softmax, where a recipe's default is DeepSeek-V3's
        found |= {"mscale": 1.0, "mscale_all_dim": 0.0}
        given.pop("max_position_embeddings", None)
        if _QUERY_BETA in given:
            found["query_beta"] = given.pop(_QUERY_BETA)
    if unknown := given.keys() - set(_KEYS[kind]):
        raise InputError(f"{path}: rope_scaling.{min(unknown)} is not supported; leave it out")
    if "factor" in _KEYS[kind] and "factor" not in given:
        raise InputError(f"{path}: rope_scaling.factor missing; {kind} needs it")
    if "original_max_position_embeddings" in _KEYS[kind]:
        found["original_max_position_embeddings"] = published.get("max_position_embeddings")
    return found | given


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """The rotary keys in the layout that every version of the common libraries reads."""
    scaling = config.rope_scaling
    if scaling is None:
        return {"rope_theta": config.rope_theta, "rope_scaling": None}
    return {"rope_theta": config.rope_theta, "rope_scaling": _scaling_table(scaling)}


def _scaling_table(scaling: RopeScaling) -> dict[str, Any]:
    kind = "dynamic" if scaling.kind == "ntk_alpha" else scaling.kind
    values = {key: getattr(scaling, key) for key in _KEYS[scaling.kind]}
    table = {"type": kind, "rope_type": kind} | {k: v for k, v in values.items() if v is not None}
    if scaling.kind == "ntk_alpha":
        table = _ALPHA_FILLERS | table
    return table | ({_QUERY_BETA: scaling.query_beta} if scaling.query_beta else {})
