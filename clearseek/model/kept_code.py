"""The code that a model was published with: kept beside its weights, never run here.

Apart because it is about other libraries: for architectures that transformers has not got, it runs such code where
its user says `trust_remote_code=True`.
"""

import json
import shutil
from pathlib import Path

from clearseek.config.errors import InputError
from clearseek.model.families import FAMILIES
from clearseek.model.resolve import CONFIG_FILE
from clearseek.model.stored import read_json

_AUTO_MAP = "auto_map"  # which class of which file stands for which of transformers'


def leave_code(source: Path, directory: Path) -> None:
    """Keep config.json's auto_map and the .py files beside it, where a model came with both. Raises OSError."""
    auto_map = _auto_map(source)
    if not auto_map:
        return
    path = directory / CONFIG_FILE
    content = json.dumps(read_json(path) | {_AUTO_MAP: auto_map}, indent=2)
    path.write_text(content + "\n", encoding="utf-8")
    for code in sorted(source.glob("*.py")):
        if code.is_file():
            shutil.copyfile(code, directory / code.name)


def why_not_transformers(family: str, source: Path) -> str | None:
    """What a user should know of a directory of this family that transformers alone can't open, in one line."""
    if FAMILIES[family].in_transformers:
        return None
    architecture = FAMILIES[family].architecture
    if _auto_map(source):
        return f"transformers has no {architecture}: it opens this with trust_remote_code=True, by the code kept beside"
    return (
        f"transformers has no {architecture}, and this model came without code for it: clearseek and vLLM open it, "
        "transformers does not"
    )


def _auto_map(source: Path) -> dict[str, object]:
    path = source / CONFIG_FILE
    found = read_json(path).get(_AUTO_MAP) if path.is_file() else None
    if found is not None and not isinstance(found, dict):
        raise InputError(f"{path}: {_AUTO_MAP} = {found!r} has to be an object; leave it out")
    return found or {}
