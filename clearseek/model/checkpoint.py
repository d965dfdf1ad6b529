"""Checkpoints: our decoder to and from directories in Hugging Face format.

Reading checks names and shapes against config.json before it allocates, then copies tensor by tensor.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.decoder import Decoder
from clearseek.model.directory import file_sha256, write_directory
from clearseek.model.families import config_from_published, config_to_published, is_mtp, is_unread, pieces_of
from clearseek.model.families.pieces import Piece
from clearseek.model.resolve import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, is_model_directory, resolve_model
from clearseek.model.stored import FLOATS, load_tensors, open_tensors, read_json, save_tensors

__all__ = [
    "file_sha256",
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
_NAMED_AT_MOST = 3  # tensors that an error lists


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
    """As `save_model`, from a state dict, such as one gathered from a sharded model."""
    directory.mkdir(parents=True, exist_ok=True)
    dtype = dtype or state["embedding.weight"].dtype
    published = config_to_published(config) | {"torch_dtype": str(dtype).removeprefix("torch.")}
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
        weight_map |= {piece.published: name for piece in shard}
    total = sum(_num_bytes(piece, state, dtype) for shard in shards for piece in shard)
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
        size = _num_bytes(piece, state, dtype)
        if size > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(piece)
        room -= size
    return shards


def _num_bytes(piece: Piece, state: Mapping[str, Tensor], dtype: torch.dtype) -> int:
    return piece.of(state[piece.ours]).numel() * _stored_dtype(piece, dtype).itemsize


def _stored_dtype(piece: Piece, dtype: torch.dtype) -> torch.dtype:
    """A selection bias moves by 0.001 a step, which bf16 would swallow: it stays fp32."""
    return torch.float32 if piece.ours.endswith("selection_bias") else dtype


def _write_shard(path: Path, pieces: list[Piece], state: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    tensors = {}
    for piece in pieces:
        view = piece.of(state[piece.ours]).detach()
        tensor = view.to(_stored_dtype(piece, dtype)).reshape(piece.published_shape(view))
        tensors[piece.published] = tensor.clone() if piece.kind == "copy" else tensor
    save_tensors(path, tensors, {"format": "pt"})


def _write_json(path: Path, table: dict[str, Any]) -> None:
    path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_config(directory: Path) -> ModelConfig:
    """The config of a model directory; raises InputError naming the file and the key."""
    path = directory / CONFIG_FILE
    return config_from_published(read_json(path), path)


def load_model(
    directory: Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Decoder:
    """The decoder of a model directory, its parameters in `dtype`, in training mode as every new module.

    A checkpoint that promises multi-token modules but has none of their tensors, as `transformers` writes it,
    is opened without. Raises InputError for weights that don't fit config.json, RunError for torn files.
    """
    directory = Path(directory)
    if not is_model_directory(directory):
        directory = resolve_model(directory)  # says what is missing
    config = load_config(directory)
    with ExitStack() as stack:
        stored = {
            name: file
            for path in _weight_files(directory)
            for file in [stack.enter_context(open_tensors(path))]
            for name in file.keys()  # noqa: SIM118
        }
        config = _without_absent_mtp(config, stored)
        with torch.device("meta"):
            model = Decoder(config)
        pieces = _check(directory, config, model.state_dict(), stored)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        model.to_empty(device=device)
        _fill(directory, model.state_dict(), pieces, stored)
    return model


def _weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory, of an index where there is one."""
    index = directory / INDEX_FILE
    if not index.is_file():
        return [directory / WEIGHTS_FILE]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index}: has no weight_map; copy or download it again")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{index}: names {name}, which is not a file beside it; download it again")
    return [directory / name for name in names]


def _without_absent_mtp(config: ModelConfig, stored: Mapping[str, Any]) -> ModelConfig:
    if any(is_mtp(config, name) for name in stored):
        return config
    return config.model_copy(update={"num_mtp_layers": 0})


def _check(
    directory: Path, config: ModelConfig, state: Mapping[str, Tensor], stored: Mapping[str, Any]
) -> list[Piece]:
    """The pieces that are stored; InputError for missing, left-over, misshapen or quantised ones."""
    pieces = list(pieces_of(config))
    missing = [piece.published for piece in pieces if piece.kind == "own" and piece.published not in stored]
    if missing:
        raise InputError(f"{directory}: {_count(missing)} missing that {CONFIG_FILE} asks for")
    known = {piece.published for piece in pieces}
    left_over = [name for name in stored if name not in known and not is_unread(config, name)]
    if left_over:
        raise InputError(f"{directory}: {_count(left_over)} left over that {CONFIG_FILE} has no place for")
    present = [piece for piece in pieces if piece.published in stored]
    for piece in present:
        entry = stored[piece.published].get_slice(piece.published)
        shape, expected = list(entry.get_shape()), piece.published_shape(piece.of(state[piece.ours]))
        if shape != expected:
            raise InputError(
                f"{directory}: {piece.published} is {shape}, but {CONFIG_FILE} makes it {expected}"
            )
        if entry.get_dtype() not in FLOATS:
            raise InputError(
                f"{directory}: {piece.published} is stored as {entry.get_dtype()}; quantised weights are not "
                "supported, convert them to bfloat16 first"
            )
    return present


def _fill(
    directory: Path, state: Mapping[str, Tensor], pieces: list[Piece], stored: Mapping[str, Any]
) -> None:
    """Copy every stored piece into its place; a copy has to equal what it repeats."""
    for piece in sorted(pieces, key=lambda piece: piece.kind != "own"):
        tensor, place = stored[piece.published].get_tensor(piece.published), piece.of(state[piece.ours])
        if piece.kind == "own":
            place.copy_(tensor.view(place.shape))
        elif not torch.equal(tensor.to(place), place):
            original = next(p.published for p in pieces if p.ours == piece.ours and p.kind == "own")
            raise InputError(
                f"{directory}: {piece.published} differs from {original}, which it should repeat; "
                "weights of its own are not supported there"
            )


def _count(names: Iterable[str]) -> str:
    """How many tensors, and the first of them."""
    names = list(names)
    shown = ", ".join(names[:_NAMED_AT_MOST]) + (", …" if len(names) > _NAMED_AT_MOST else "")
    return f"{len(names)} {'tensor' if len(names) == 1 else 'tensors'} ({shown})"
