"""Safetensors files: opened with torn ones named, written with a full disk known as such. Never a pickle."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clearseek.config.errors import InputError, RunError

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})  # safetensors' names of what weights may be stored in

_ELSEWHERE = "copy or download it again, or use another checkpoint"


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors of any dtype and device under their names. Raises OSError when the disk refuses."""
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata=dict(metadata or {}))
    except SafetensorError as error:
        if code := re.search(r"os error (\d+)", str(error)):
            number = int(code[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, on the CPU, and its metadata. Raises RunError if it is torn or missing."""
    with open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """A safetensors file to read from lazily; RunError names a torn or missing one."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except SafetensorError as error:
        raise RunError(f"{path}: torn or not a safetensors file ({error}); {_ELSEWHERE}") from error
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing; {_ELSEWHERE}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint; InputError names the file and the line that breaks it."""
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a directory in Hugging Face format") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); copy or download it again") from error
    if not isinstance(table, dict):
        raise InputError(f"{path}: is JSON but not an object; copy or download it again")
    return table
