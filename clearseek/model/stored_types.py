"""In which types a model directory's weights are stored, from the headers of its files alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from clearseek.config.errors import RunError
from clearseek.model.resolve import INDEX_FILE, WEIGHTS_FILE
from clearseek.model.stored import read_json

_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


@dataclass(frozen=True, slots=True)
class StoredType:
    """A tensor, its type by safetensors' name, how many dimensions it has, and its bytes."""

    tensor: str
    name: str
    dimensions: int
    num_bytes: int


def stored_types(directory: Path) -> Iterator[StoredType]:
    """Every tensor of a directory; of files that are absent none. Raises RunError for one that is torn."""
    index = directory / INDEX_FILE
    weight_map = read_json(index).get("weight_map") if index.is_file() else None
    names = weight_map.values() if isinstance(weight_map, dict) else [WEIGHTS_FILE]
    for path in sorted({directory / Path(str(name)).name for name in names}):
        if path.is_file():
            yield from _types_of(path)


def _types_of(path: Path) -> Iterator[StoredType]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in file.keys():  # noqa: SIM118
                entry = file.get_slice(name)
                kind, shape = str(entry.get_dtype()), entry.get_shape()
                yield StoredType(name, kind, len(shape), math.prod(shape) * _BYTES.get(kind, 1))
    except SafetensorError as error:
        raise RunError(
            f"{path}: torn or not a safetensors file ({error}); copy or download it again"
        ) from error
