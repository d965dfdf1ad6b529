"""Checkpoints: our decoder to and from directories in Hugging Face format. Reading is in `loading`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearseek.config.model import ModelConfig
from clearseek.model.decoder import Decoder
from clearseek.model.directory import write_directory
from clearseek.model.families import config_to_published, pieces_of
from clearseek.model.families.pieces import Piece
from clearseek.model.loading import load_config, load_model
from clearseek.model.resolve import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, resolve_model
from clearseek.model.stored import load_tensors, save_tensors
from clearseek.model.written import (
    FP8,
    check_fp8,
    names_of,
    num_bytes,
    plain_dtype,
    quantisation_config,
    written,
)

__all__ = [
    "load_config",
    "load_model",
    "load_tensors",
    "resolve_model",
    "save_model",
    "save_state",
    "save_tensors",
    "write_directory",
]

SHARD_BYTES = 5_000_000_000
GENERATION_FILE = "generation_config.json"


def save_model(
    model: Decoder,
    directory: Path,
    *,
    bos_id: int | None,
    eos_id: int | None,
    pad_id: int | None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model as `transformers` reads it, in `dtype` (default: the parameters' own).

    Fill a `write_directory` with it for a checkpoint that is whole or not there. Raises OSError.
    """
    ids = {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": pad_id}
    save_state(model.config, model.state_dict(), directory, token_ids=ids, dtype=dtype)


def save_state(
    config: ModelConfig,
    state: Mapping[str, Tensor],
    directory: Path,
    *,
    token_ids: Mapping[str, int | None],
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """As `save_model`, from a state dict, such as one gathered from a sharded model.

    In float8_e4m3fn: as DeepSeek-V3 publishes block-fp8, see `written`. InputError for a family that can't be.
    """
    directory.mkdir(parents=True, exist_ok=True)
    dtype = dtype or state["embedding.weight"].dtype
    if dtype == FP8:
        check_fp8(config)
    published = config_to_published(config) | {"torch_dtype": str(plain_dtype(dtype)).removeprefix("torch.")}
    published |= quantisation_config(config, dtype)
    _write_json(directory / CONFIG_FILE, published | dict(token_ids))
    _write_json(directory / GENERATION_FILE, dict(token_ids))
    shards = _shards(config, state, dtype, shard_bytes)
    if len(shards) == 1:
        _write_shard(directory / WEIGHTS_FILE, shards[0], state, dtype)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(directory / name, shard, state, dtype)
        weight_map |= {tensor: name for piece in shard for tensor in names_of(piece, state, dtype)}
    total = sum(num_bytes(piece, state, dtype) for shard in shards for piece in shard)
    _write_json(directory / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(
    config: ModelConfig, state: Mapping[str, Tensor], dtype: torch.dtype, shard_bytes: int
) -> list[list[Piece]]:
    """The pieces to write, in order, in files of at most `shard_bytes` (a larger tensor has its own)."""
    shards: list[list[Piece]] = [[]]
    room = shard_bytes
    for piece in pieces_of(config):
        if piece.kind == "alias":
            continue
        size = num_bytes(piece, state, dtype)
        if size > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(piece)
        room -= size
    return shards


def _write_shard(path: Path, pieces: list[Piece], state: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    tensors = dict(pair for piece in pieces for pair in written(piece, state, dtype))
    save_tensors(path, tensors, {"format": "pt"})


def _write_json(path: Path, table: dict[str, Any]) -> None:
    path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
