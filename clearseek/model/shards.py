"""The safetensors files of a model directory as one table of tensors, checked against its index."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from clearseek.config.errors import InputError, RunError
from clearseek.model.resolve import INDEX_FILE, WEIGHTS_FILE
from clearseek.model.safetensors_header import ELSEWHERE
from clearseek.model.sources import Plain
from clearseek.model.stored import StoredTensors, open_tensors, read_json


def open_shards(directory: Path, stack: ExitStack) -> dict[str, Plain]:
    """Every tensor of a model directory by name, its files open until `stack` ends.

    Raises InputError where the index disagrees with the files, RunError for torn or missing files.
    """
    index = directory / INDEX_FILE
    if not index.is_file():
        return _tensors(_open(directory / WEIGHTS_FILE, stack))
    weight_map = _weight_map(index)
    found: dict[str, Plain] = {}
    for name in sorted(set(weight_map.values())):
        tensors = _tensors(_open(directory / name, stack))
        _check_agreement(index, name, weight_map, tensors)
        found |= tensors
    absent = weight_map.keys() - found.keys()
    if absent:
        name = min(absent)
        raise InputError(f"{index}: says that {weight_map[name]} holds {name}, which it doesn't; {ELSEWHERE}")
    return found


def _open(path: Path, stack: ExitStack) -> StoredTensors:
    if path.exists() and not path.is_file():
        raise RunError(f"{path}: is not a file; {ELSEWHERE}")
    return stack.enter_context(open_tensors(path))


def _tensors(file: StoredTensors) -> dict[str, Plain]:
    return {name: Plain(file, name) for name in file.entries}


def _weight_map(index: Path) -> dict[str, str]:
    """Which file holds which tensor; every file lies beside the index."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index}: has no weight_map; copy or download it again")
    for name in weight_map.values():
        if not _is_beside(name):
            raise InputError(f"{index}: names {name}, which is not a file beside it; download it again")
    return weight_map


def _is_beside(name: object) -> bool:
    if not isinstance(name, str) or not name.isprintable():
        return False
    return name not in ("", "..") and Path(name).name == name and "\\" not in name


def _check_agreement(
    index: Path, file: str, weight_map: Mapping[str, str], held: Mapping[str, Plain]
) -> None:
    for name in _unexpected(file, weight_map, held):
        elsewhere = weight_map.get(name)
        said = f"says that {elsewhere} holds it" if elsewhere else "doesn't name it"
        raise InputError(f"{index}: {file} holds {name}, but the index {said}; {ELSEWHERE}")


def _unexpected(file: str, weight_map: Mapping[str, str], held: Mapping[str, Plain]) -> Iterator[str]:
    return (name for name in held if weight_map.get(name) != file)
