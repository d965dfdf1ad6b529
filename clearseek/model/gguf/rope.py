"""Stretched rotary frequencies in GGUF: which keys say it, and what llama.cpp would compute differently.

llama.cpp multiplies rotated queries and keys by 1 + 0.1 ln(factor) of its own accord; the published formats say the
multiplier, or leave it out. Llama 3's stretch is not in the keys but in a tensor of divisors, `rope_freqs.weight`.
It rounds the bounds of YaRN's ramp, which gpt-oss does not: its files are written all the same, as llama.cpp's own
converter does, with a key of ours that says which it was.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from clearseek.config.errors import InputError
from clearseek.model.families.sliding import KINDS
from clearseek.model.gguf.header import GgufFile

ROPE_FREQUENCIES = "rope_freqs.weight"
_BY_TYPE = tuple(zip(KINDS, ("rope.freq_base", "rope.freq_base_swa"), strict=True))
_TRUNCATE = "rope.scaling.yarn_truncate"  # ours
_BETA = "llama_4_scaling_beta"
_GROWTH, _GROWTH_LENGTH = "attention.temperature_scale", "attention.temperature_length"
_GROWING = ("mistral4", "deepseek_v2", "deepseek_v3")
# Llama 3.1, 3.2 and 3.3 differ in the factor only
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_keys(published: Mapping[str, Any]) -> dict[str, Any]:
    """GGUF's keys of a published config's rotary settings; raises InputError for what llama.cpp has not got."""
    rope = _rope_of(published)
    if KINDS[0] in rope:
        return _by_type(published, rope)
    kind = rope.get("rope_type", "default")
    keys: dict[str, Any] = {"rope.freq_base": float(rope["rope_theta"])}
    if kind in ("default", "llama3"):
        return keys
    if kind == "dynamic" and rope.get("alpha"):  # Hunyuan's fixed stretch of the base
        size = head_size(published)
        return {"rope.freq_base": keys["rope.freq_base"] * float(rope["alpha"]) ** (size / (size - 2))}
    if kind == "linear":
        return {**keys, "rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    if kind != "yarn":
        raise InputError(
            f"rope type {kind!r} can't be written as GGUF; known ones: default, linear, llama3, yarn"
        )
    if published.get("model_type") == "gpt_oss":
        keys[_TRUNCATE] = rope.get("truncate", True)
    elif rope.get("truncate") is False:
        raise InputError(
            "rope_scaling.truncate = False can't be written as GGUF: llama.cpp rounds the bounds of YaRN's ramp. "
            "Use --to hf"
        )
    keys |= {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(rope["factor"]),
        "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
    }
    for name in ("beta_fast", "beta_slow"):
        if rope.get(name) is not None:
            keys[f"rope.scaling.yarn_{name}"] = float(rope[name])
    keys |= _growth_keys(published, rope)
    return keys | (_latent_yarn(rope) if "kv_lora_rank" in published else _grouped_yarn(rope))


def _by_type(published: Mapping[str, Any], rope: Mapping[str, Any]) -> dict[str, Any]:
    """Two plain tables, for layers that see everything and for those that see a window; a part of a head turns."""
    keys: dict[str, Any] = {key: float(rope[kind]["rope_theta"]) for kind, key in _BY_TYPE}
    turned = int(head_size(published) * rope[KINDS[0]]["partial_rotary_factor"])
    return keys | {"rope.dimension_count": turned}


def _growth_keys(published: Mapping[str, Any], rope: Mapping[str, Any]) -> dict[str, Any]:
    """How queries grow with the position (Llama 4), which llama.cpp has in some architectures."""
    if not rope.get(_BETA):
        return {}
    if published.get("model_type") not in _GROWING:
        raise InputError(
            f"rope_scaling.{_BETA} = {rope[_BETA]} can't be written as GGUF: llama.cpp has it for other families only. "
            "Use --to hf"
        )
    return {_GROWTH: float(rope[_BETA]), _GROWTH_LENGTH: rope["original_max_position_embeddings"]}


def rounds_ramp(published: Mapping[str, Any]) -> bool:
    """Whether llama.cpp rounds the bounds of YaRN's ramp where the model does not."""
    return _rope_of(published).get("truncate") is False


def rope_frequencies(published: Mapping[str, Any]) -> np.ndarray | None:
    """Llama 3's divisors of the rotary frequencies, fp32 [D / 2]; None for other kinds."""
    rope = _rope_of(published)
    if rope.get("rope_type") != "llama3":
        return None
    return _divisors(head_size(published), rope)


def head_size(published: Mapping[str, Any]) -> int:
    """The size of a query head of grouped-query attention."""
    size: int = published.get("head_dim") or published["hidden_size"] // published["num_attention_heads"]
    return size


def read_rope(file: GgufFile, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The published rotary keys of a GGUF file; raises InputError for a stretch that is not known."""
    theta = _number(file, keys, "rope.freq_base", 10_000.0)
    if file.architecture == "mimo2":
        return _read_by_type(file, keys)
    kind = keys.get("rope.scaling.type", "none")
    if ROPE_FREQUENCIES in file.tensors:
        return {"rope_theta": theta, "rope_scaling": _read_llama3(file, keys, theta)}
    if keys.get(_GROWTH) and kind != "yarn":
        raise InputError(f"{file.path}: {_GROWTH} is supported with rope.scaling.type yarn only")
    if kind == "none":
        return {"rope_theta": theta, "rope_scaling": None}
    if kind not in ("linear", "yarn"):
        raise InputError(
            f"{file.path}: rope.scaling.type {kind!r} is not supported; known ones: none, linear, yarn"
        )
    scaling: dict[str, Any] = {
        "rope_type": kind,
        "type": kind,
        "factor": _number(file, keys, "rope.scaling.factor"),
    }
    if kind == "yarn":
        scaling |= _read_yarn(file, keys, scaling["factor"])
    return {"rope_theta": theta, "rope_scaling": scaling}


def _read_by_type(file: GgufFile, keys: Mapping[str, Any]) -> dict[str, Any]:
    if keys.get("rope.scaling.type", "none") != "none":
        raise InputError(f"{file.path}: rope.scaling.type of mimo2 has to be none; no other is supported")
    size, turned = (_number(file, keys, name, 0) for name in ("attention.key_length", "rope.dimension_count"))
    if not 0 < turned <= size:
        raise InputError(
            f"{file.path}: rope.dimension_count ({turned:g}) must be between 1 and attention.key_length ({size:g})"
        )
    # halfway to the next whole dimension, so that no rounding takes one away
    share = 1.0 if turned == size else (turned + 0.5) / size
    tables = {
        kind: {"rope_type": "default", "rope_theta": _number(file, keys, key, 10_000.0)}
        for kind, key in _BY_TYPE
    }
    return {"rope_parameters": {k: {**table, "partial_rotary_factor": share} for k, table in tables.items()}}


def _rope_of(published: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary settings of either published layout in one table."""
    rope: dict[str, Any] = {"rope_theta": published.get("rope_theta", 10_000.0)}
    for key in ("rope_scaling", "rope_parameters"):
        rope |= {name: value for name, value in (published.get(key) or {}).items() if value is not None}
    return rope


def _growth(factor: float, mscale: float = 1.0) -> float:
    """YaRN's multiplier (arXiv:2309.00071, section 3.4)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _multiplier(rope: Mapping[str, Any]) -> float:
    """By how much rotated queries and keys grow, as transformers reads the table."""
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    mscale, all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
    if mscale and all_dim:
        return _growth(rope["factor"], mscale) / _growth(rope["factor"], all_dim)
    return _growth(rope["factor"])


def _grouped_yarn(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Grouped-query attention: llama.cpp's own multiplier, corrected to the published one."""
    correction = _multiplier(rope) / _growth(rope["factor"])
    return {} if math.isclose(correction, 1.0) else {"rope.scaling.attn_factor": correction}


def _latent_yarn(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Latent attention: the softmax's correction. llama.cpp takes for granted that both mscales are equal."""
    mscale, all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
    if not all_dim or mscale != all_dim or rope.get("attention_factor") is not None:
        raise InputError(
            f"rope_scaling.mscale ({mscale}) and mscale_all_dim ({all_dim}) must be equal in a GGUF file: llama.cpp "
            "would compute something else. Use --to hf"
        )
    return {"rope.scaling.yarn_log_multiplier": 0.1 * all_dim}


def _read_yarn(file: GgufFile, keys: Mapping[str, Any], factor: float) -> dict[str, Any]:
    yarn = {
        name: _number(file, keys, f"rope.scaling.yarn_{name}")
        for name in ("beta_fast", "beta_slow")
        if f"rope.scaling.yarn_{name}" in keys
    }
    if "rope.scaling.original_context_length" in keys:
        yarn["original_max_position_embeddings"] = keys["rope.scaling.original_context_length"]
    yarn |= _read_growth(file, keys, yarn.get("original_max_position_embeddings"))
    if file.architecture == "gpt-oss":
        yarn["truncate"] = bool(keys.get(_TRUNCATE, False))
    if "rope.scaling.yarn_log_multiplier" in keys:
        both = round(_number(file, keys, "rope.scaling.yarn_log_multiplier") / 0.1, 6)
        return yarn | {"mscale": both, "mscale_all_dim": both}
    multiplier = _number(file, keys, "rope.scaling.attn_factor", 1.0) * _growth(factor)
    if math.isclose(multiplier, 1.0, rel_tol=1e-6):
        return yarn | {"mscale": 1.0, "mscale_all_dim": 1.0}
    if math.isclose(multiplier, _growth(factor), rel_tol=1e-6):
        return yarn
    return yarn | {"attention_factor": multiplier}


def _read_growth(file: GgufFile, keys: Mapping[str, Any], original: Any) -> dict[str, Any]:
    beta = _number(file, keys, _GROWTH, 0.0)
    if beta and keys.get(_GROWTH_LENGTH) != original:
        raise InputError(
            f"{file.path}: {_GROWTH_LENGTH} ({keys.get(_GROWTH_LENGTH)}) must be "
            f"rope.scaling.original_context_length ({original})"
        )
    return {_BETA: beta} if beta else {}


def _number(file: GgufFile, keys: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """A finite number of the metadata; InputError where it is absent or something else."""
    value = keys.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{file.path}: {name} = {value!r} has to be a number")
    return float(value)


def _divisors(size: int, rope: Mapping[str, Any]) -> np.ndarray:
    """Long waves are stretched by the factor, short ones not at all, those between by part (Llama 3.1)."""
    frequencies = 1.0 / float(rope["rope_theta"]) ** (np.arange(0, size, 2, dtype=np.float64) / size)
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = ((turns - low) / (high - low)).clip(0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def _read_llama3(file: GgufFile, keys: Mapping[str, Any], theta: float) -> dict[str, Any]:
    """Llama 3's settings from its divisors, which the common ones have to give again."""
    tensor = file.tensors[ROPE_FREQUENCIES]
    if tensor.type_name != "F32":
        raise InputError(f"{file.path}: {ROPE_FREQUENCIES} is {tensor.type_name}; only F32 is known")
    stored = file.bytes_of(tensor).view(np.float32)
    rope = {**_LLAMA3, "rope_theta": theta, "factor": float(stored.max())}
    if not np.allclose(_divisors(2 * len(stored), rope), stored, rtol=1e-4):
        raise InputError(f"{file.path}: {ROPE_FREQUENCIES} is not Llama 3's stretch; only that is supported")
    del rope["rope_theta"]
    return {"rope_type": "llama3", "type": "llama3", **rope}
