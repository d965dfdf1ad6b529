"""Published checkpoint formats: config.json and tensor names of each, mapped onto the one decoder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.families import deepseek_v3, llama, qwen3
from clearseek.model.families.pieces import Piece

FAMILIES: dict[str, ModuleType] = {"deepseek_v3": deepseek_v3, "llama": llama, "qwen3": qwen3}


def config_from_published(published: Mapping[str, Any], path: Path) -> ModelConfig:
    """Our config from the contents of a config.json; `path` is named in errors.

    Raises InputError for an architecture, a switch or dimensions that we have not got.
    """
    family = FAMILIES.get(str(published.get("model_type")))
    if family is None:
        found = published.get("model_type") or published.get("architectures")
        raise InputError(f"{path}: model_type {found!r} is not supported; known ones: {', '.join(FAMILIES)}")
    config: ModelConfig = family.read_config(published, path)
    return config


def config_to_published(config: ModelConfig) -> dict[str, Any]:
    """The contents of a config.json, without token ids and dtype."""
    family = FAMILIES[config.family]
    return {
        "architectures": [family.ARCHITECTURE],
        "model_type": config.family,
        **family.write_config(config),
        "use_cache": True,
    }


def pieces_of(config: ModelConfig) -> Iterator[Piece]:
    """Every tensor of the published checkpoint, each once, in the published order."""
    pieces: Iterator[Piece] = FAMILIES[config.family].pieces(config)
    return pieces
