"""Qwen3: grouped-query attention with a norm on every query and key head, and a dense feed-forward."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.families.pieces import Piece, dense_pieces, grouped_query_pieces, model_pieces
from clearseek.model.families.published_config import COMMON, SWITCHES, check_switches, read_keys, write_keys

ARCHITECTURE = "Qwen3ForCausalLM"

_KEYS = COMMON | {"num_key_value_heads": "num_key_value_heads", "head_dim": "head_dim"}
_SWITCHES = SWITCHES | {"use_sliding_window": False}


def read_config(published: Mapping[str, Any], path: Path) -> ModelConfig:
    """Our config from a published one."""
    check_switches(published, _SWITCHES, path)
    layer_types = published.get("layer_types") or []
    if not isinstance(layer_types, list) or any(kind != "full_attention" for kind in layer_types):
        raise InputError(f"{path}: layer_types = {layer_types!r} is not supported; only full_attention is")
    return read_keys("qwen3", published, _KEYS, path)


def write_config(config: ModelConfig) -> dict[str, Any]:
    """The published config of ours."""
    sizes = {"num_key_value_heads": config.kv_heads, "head_dim": config.head_size}
    return {**write_keys(config, COMMON), **sizes, **_SWITCHES}


def pieces(config: ModelConfig) -> Iterator[Piece]:
    """Every published tensor."""
    return model_pieces(config, grouped_query_pieces, dense_pieces)
