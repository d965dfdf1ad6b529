"""Layers that see a window only, as several families publish them."""

from pathlib import Path
from typing import Any

from clearseek.config.model import ModelConfig
from clearseek.model.families.family import Published
from clearseek.model.families.published_config import layer_list

FIELDS = frozenset({"layer_types", "sliding_window"})
KINDS = ("full_attention", "sliding_attention")


def read_layer_types(published: Published, path: Path, otherwise: list[str] | None = None) -> dict[str, Any]:
    """Our fields from `layer_types`, or from what it is where a file has none; nothing where all see everything."""
    kinds = layer_list(published, "layer_types", KINDS, path) or otherwise or []
    if KINDS[1] not in kinds:
        return {}
    return {"layer_types": tuple(kinds), "sliding_window": published.get("sliding_window")}


def read_switched(published: Published, path: Path) -> dict[str, Any]:
    """Qwen's way: `use_sliding_window`, for the layers from `max_window_layers` on unless there is a list."""
    if not published.get("use_sliding_window"):
        return read_layer_types(published, path)
    first, count = published.get("max_window_layers", 28), published.get("num_hidden_layers")
    if not isinstance(first, int) or not isinstance(count, int):
        return {}
    return read_layer_types(published, path, [KINDS[index >= first] for index in range(min(count, 2**11))])


def write_switched(config: ModelConfig) -> dict[str, Any]:
    """Qwen's way."""
    if KINDS[1] not in config.layer_types:
        return {"use_sliding_window": False}
    window = {"use_sliding_window": True, "sliding_window": config.sliding_window}
    return window | {"layer_types": [config.layer_type(index) for index in range(config.num_layers)]}


def read_everywhere(published: Published, path: Path) -> dict[str, Any]:
    """Mistral's way: a window that is not null is every layer's."""
    window, count = published.get("sliding_window"), published.get("num_hidden_layers")
    if window is None or not isinstance(count, int):
        return {}
    return {"layer_types": (KINDS[1],) * min(count, 2**11), "sliding_window": window}


def write_everywhere(config: ModelConfig) -> dict[str, Any]:
    """Mistral's way."""
    return {"sliding_window": config.sliding_window}
