"""Llama: grouped-query attention and a dense feed-forward, nothing else."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clearseek.config.model import ModelConfig
from clearseek.model.families.pieces import Piece, dense_pieces, grouped_query_pieces, model_pieces
from clearseek.model.families.published_config import COMMON, SWITCHES, check_switches, read_keys, write_keys

ARCHITECTURE = "LlamaForCausalLM"

_SWITCHES = SWITCHES | {"mlp_bias": False}


def read_config(published: Mapping[str, Any], path: Path) -> ModelConfig:
    """Our config from a published one; early files leave both keys of grouped-query attention out."""
    check_switches(published, _SWITCHES, path)
    optional = [key for key in ("num_key_value_heads", "head_dim") if key in published]
    return read_keys("llama", published, COMMON | {key: key for key in optional}, path)


def write_config(config: ModelConfig) -> dict[str, Any]:
    """The published config of ours."""
    sizes = {"num_key_value_heads": config.kv_heads, "head_dim": config.head_size}
    return {**write_keys(config, COMMON), **sizes, **_SWITCHES}


def pieces(config: ModelConfig) -> Iterator[Piece]:
    """Every published tensor."""
    return model_pieces(config, grouped_query_pieces, dense_pieces)
