"""A GGUF file into a decoder, tensor by tensor, checked against its metadata before anything is allocated."""

from pathlib import Path

import torch
from torch import Tensor, nn

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.decoder import Decoder
from clearseek.model.device import allocate
from clearseek.model.families import config_from_published
from clearseek.model.gguf.blocks import GgufWeights
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
    model, file, entries = _opened(path)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    allocate(model, device)
    _fill_all(file, entries, model)
    return model


def open_gguf(path: Path) -> Decoder:
    """The decoder of a GGUF file whose matrices stay there, as its `stored`, until the engine lays them out.

    Their parameters are on the meta device; all others are in fp32 on the CPU. Raises InputError as `load_gguf`.
    """
    model, file, entries = _opened(path)
    parameters = dict(model.named_parameters())
    kept = [entry for entry in entries if _is_matrix(entry, parameters)]
    weights = GgufWeights(file, model.config, {name: each.shape for name, each in parameters.items()})
    for entry in kept:
        weights.add(entry)
    _have_room(model, {id(each) for name, each in parameters.items() if name in weights})
    _fill_all(file, [entry for entry in entries if entry not in kept], model)
    model.stored = weights
    return model


def _is_matrix(entry: Entry, parameters: dict[str, nn.Parameter]) -> bool:
    """Whether a tensor is (a part of) a matrix; experts' biases are a vector each."""
    name = entry.pieces[0].ours
    return name in parameters and parameters[name].ndim > 1 and not name.endswith("bias")


def _have_room(model: Decoder, but: set[int]) -> None:
    """Memory for what is on the meta device, except the parameters of these ids."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in but:
                setattr(module, name, nn.Parameter(torch.empty_like(parameter, device="cpu")))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty_like(buffer, device="cpu"))


def _opened(path: Path) -> tuple[Decoder, GgufFile, list[Entry]]:
    """A decoder on the meta device, and what of the file belongs into it."""
    file = read_header(path)
    config = gguf_config(file)
    with torch.device("meta"):
        model = Decoder(config)
    entries = list(entries_of(config))
    _check(file, config, entries, model.state_dict())
    return model, file, entries


def _fill_all(file: GgufFile, entries: list[Entry], model: Decoder) -> None:
    state = model.state_dict()
    with torch.no_grad():
        for entry in entries:
            _fill(file, model.config, entry, state)


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
