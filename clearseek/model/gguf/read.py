"""A GGUF file into a decoder, tensor by tensor, checked against its metadata before anything is allocated."""

from pathlib import Path

import torch
from torch import Tensor

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.decoder import Decoder
from clearseek.model.families import config_from_published
from clearseek.model.gguf.header import GgufFile, read_header
from clearseek.model.gguf.metadata import mtp_layers, published_config
from clearseek.model.gguf.rope import ROPE_FREQUENCIES
from clearseek.model.gguf.storage import decode
from clearseek.model.gguf.tensors import Entry, entries_of, shape_of, view_of

_NAMED_AT_MOST = 3
_MATRIX = 2  # dimensions


def gguf_config(file: GgufFile) -> ModelConfig:
    """Our config from a GGUF file's metadata; raises InputError for what we have not built."""
    return config_from_published(published_config(file), file.path)


def load_gguf(path: Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Decoder:
    """The decoder of a GGUF file with its parameters in `dtype`, as `load_model` gives that of a directory.

    Raises InputError for a file that is torn, or whose tensors don't fit its metadata.
    """
    file = read_header(path)
    config = gguf_config(file)
    with torch.device("meta"):
        model = Decoder(config)
    entries = list(entries_of(config))
    _check(file, config, entries, model.state_dict())
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.to_empty(device=device)
    state = model.state_dict()
    with torch.no_grad():
        for entry in entries:
            _fill(file, config, entry, state)
    return model


def _check(file: GgufFile, config: ModelConfig, entries: list[Entry], state: dict[str, Tensor]) -> None:
    """Raise InputError for a part of a file, and for missing, left-over or misshapen tensors."""
    if file.metadata.get("split.count", 1) != 1:
        raise InputError(
            f"{file.path}: is one of {file.metadata['split.count']} parts; join them with llama.cpp's "
            "llama-gguf-split --merge"
        )
    _refuse(file, "missing", [entry.name for entry in entries if entry.name not in file.tensors])
    known = {entry.name for entry in entries} | {ROPE_FREQUENCIES}
    mtp = tuple(
        f"blk.{config.num_layers + depth}." for depth in range(mtp_layers(file))
    )  # not read, as not written
    _refuse(file, "left over", [n for n in file.tensors if n not in known and not n.startswith(mtp)])
    for entry in entries:
        first = entry.pieces[0]
        expected = shape_of(config, entry, first.of(state[first.ours]))
        shape = file.tensors[entry.name].shape
        if shape != expected:
            raise InputError(
                f"{file.path}: {entry.name} is {list(shape)}, but its metadata makes it {list(expected)}"
            )


def _refuse(file: GgufFile, what: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(names[:_NAMED_AT_MOST]) + (", …" if len(names) > _NAMED_AT_MOST else "")
        raise InputError(f"{file.path}: {len(names)} tensors {what} ({shown}) by what its metadata says")


def _fill(file: GgufFile, config: ModelConfig, entry: Entry, state: dict[str, Tensor]) -> None:
    """Write one tensor of the file, expert by expert, into the published ones that it holds."""
    stored = file.tensors[entry.name]
    places = [view_of(config, entry.layout, piece.of(state[piece.ours])) for piece in entry.pieces]
    if not entry.is_stacked and len(stored.shape) > _MATRIX:  # experts that are one tensor here too
        places = list(places[0])
    shape = stored.shape[1:] if len(stored.shape) > _MATRIX else stored.shape
    raw = file.bytes_of(stored).reshape(len(places), -1)
    for place, bytes_of_one in zip(places, raw, strict=True):
        weights = torch.from_numpy(decode(bytes_of_one, stored.type_name, shape))
        place.copy_(weights.reshape(place.shape))
