"""Reading a model directory into our decoder, with little more memory than the decoder itself.

Names and shapes are checked against config.json before anything is allocated; `filling` copies the weights.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from clearseek.config.errors import InputError, InputWarning
from clearseek.config.model import ModelConfig
from clearseek.model.decoder import Decoder
from clearseek.model.device import allocate
from clearseek.model.families import (
    config_from_published,
    is_derived,
    pieces_of,
    unread_pattern,
    unread_tensors,
    with_stored_mtp,
)
from clearseek.model.families.pieces import Piece
from clearseek.model.filling import Placed, fill
from clearseek.model.fused import as_stored
from clearseek.model.mapped import map_parameters
from clearseek.model.resolve import CONFIG_FILE, is_model_directory, resolve_model
from clearseek.model.shards import open_shards
from clearseek.model.sources import Source, check_float, open_sources
from clearseek.model.stored import read_json

_NAMED_AT_MOST = 3  # tensors that an error lists
_COUNTED_AT_MOST = 100_000  # missing ones, after which it stops looking for more


def load_config(directory: Path) -> ModelConfig:
    """The config of a model directory; raises InputError naming the file and the key."""
    path = directory / CONFIG_FILE
    return config_from_published(read_json(path), path)


def load_model(
    directory: Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    mapped: bool = False,
) -> Decoder:
    """The decoder of a model directory, its parameters in `dtype`, in training mode as every new module.

    `mapped`: parameters may be the file's own pages, see `mapped`. Training copies: where in memory a number
    lies may change a product's last bit, and a run must come out the same however it was resumed.

    Multi-token modules are those stored, see `with_stored_mtp`. Warns (InputWarning) of tensors that the family
    leaves unread. Raises InputError for weights that don't fit config.json, RunError for torn files.
    """
    directory = Path(directory)
    if not is_model_directory(directory):
        directory = resolve_model(directory)  # says what is missing
    config = load_config(directory)
    quantisation = read_json(directory / CONFIG_FILE).get("quantization_config")
    with ExitStack() as stack:
        sources = open_sources(open_shards(directory, stack), quantisation, directory)
        config = with_stored_mtp(config, sources)
        pieces = _check_names(directory, config, sources)
        with torch.device("meta"):
            model = Decoder(config)
        _check_shapes(directory, pieces, model.state_dict(), sources)
        lent: dict[str, Tensor] = {}
        if mapped and torch.device(device).type == "cpu":
            lent = map_parameters(dict(model.named_parameters()), pieces, sources, dtype)
        _allocate(model, dtype, device, lent)
        left = [piece for piece in pieces if piece.kind != "own" or piece.ours not in lent]
        fill(directory, _placed(left, model.state_dict(), sources))
    return model


def _check_names(directory: Path, config: ModelConfig, sources: Mapping[str, Source]) -> list[Piece]:
    """The pieces that are stored, under their stored names; InputError for missing and left-over ones."""
    known, present = set(), []

    def missing() -> Iterator[str]:
        for piece in as_stored(config, pieces_of(config), sources, directory):
            known.add(piece.published)
            if piece.published in sources:
                present.append(piece)
            elif piece.kind == "own":
                yield piece.published

    if names := list(islice(missing(), _COUNTED_AT_MOST)):
        raise InputError(f"{directory}: {_count(names)} missing that {CONFIG_FILE} asks for")
    others = [name for name in sources if name not in known and not is_derived(name)]
    if left_over := [name for name in others if unread_pattern(config, name) is None]:
        raise InputError(f"{directory}: {_count(left_over)} left over that {CONFIG_FILE} has no place for")
    if others:
        unread = ", ".join(f"{count} x {name}" for name, count in unread_tensors(config, others).items())
        warnings.warn(f"{directory}: {unread} left unread; saving will lose them", InputWarning, stacklevel=3)
    return present


def _check_shapes(
    directory: Path, pieces: list[Piece], state: Mapping[str, Tensor], sources: Mapping[str, Source]
) -> None:
    """InputError for the first tensor that is misshapen or quantised."""
    for placed in _placed(pieces, state, sources):
        name = placed.piece.published
        shape, expected = list(placed.source.shape), list(placed.piece.published_shape(placed.place))
        if shape != expected:
            raise InputError(f"{directory}: {name} is {shape}, but {CONFIG_FILE} makes it {expected}")
        check_float(name, placed.source, directory)


def _placed(
    pieces: list[Piece], state: Mapping[str, Tensor], sources: Mapping[str, Source]
) -> Iterator[Placed]:
    for piece in pieces:
        yield Placed(piece, sources[piece.published], piece.of(state[piece.ours]))


def _allocate(
    model: Decoder, dtype: torch.dtype, device: torch.device | str, lent: Mapping[str, Tensor]
) -> None:
    """Memory for a decoder on the meta device: parameters in `dtype` and buffers in their own; `lent` ones have it."""
    for name, parameter in model.named_parameters():
        meta = parameter.data
        parameter.data = meta.new_empty(0, dtype=dtype) if name in lent else meta.to(dtype)
    allocate(model, device)
    for name, parameter in model.named_parameters():
        if name in lent:
            parameter.data = lent[name]


def _count(names: list[str]) -> str:
    """How many tensors, and the first of them."""
    shown = ", ".join(names[:_NAMED_AT_MOST]) + (", …" if len(names) > _NAMED_AT_MOST else "")
    more = " or more" if len(names) == _COUNTED_AT_MOST else ""
    return f"{len(names)}{more} {'tensor' if len(names) == 1 else 'tensors'} ({shown})"
