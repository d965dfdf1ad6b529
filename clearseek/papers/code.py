"""The code that made a run, room by room with the hash of every file: what the checklists count as code."""

import hashlib
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.papers.facts import CODE_LICENCE, RunFacts

# which folders of the package each component of the Model Openness Framework is
PARTS = {
    "Model architecture": ("model",),
    "Training code": ("train", "recipe"),
    "Inference code": ("engine", "serve"),
    "Evaluation code": ("eval", "tasks"),
    "Data preprocessing code": ("text", "tasks", "trace"),
    "Supporting libraries and tools": ("config", "ledger", "cli", "claims", "papers"),
}
_SOURCE = (".py", ".h", ".cpp", ".jinja", ".toml")


def installed_version() -> str:
    """The version of clearseek that writes the papers."""
    return metadata.version("clearseek")


def code_manifest(facts: RunFacts) -> dict[str, Any]:
    """Every source file by part, with its hash. InputError where the run was made by another version than this."""
    made = (facts.record.run.get("versions") or {}).get("clearseek")
    if made != installed_version():
        raise InputError(
            f"{facts.run} was made by clearseek {made}, this is {installed_version()}: the papers of a run name the "
            "code that made it, so make them with that version"
        )
    root = Path(str(resources.files("clearseek")))
    parts = {name: _files(root, folders) for name, folders in PARTS.items()}
    return {"package": "clearseek", "version": made, "licence": CODE_LICENCE, "parts": parts}


def installed_sha256(path: str) -> str | None:
    """The hash of a source file of the package that is installed here, by its path in a manifest; None without it."""
    inside = Path(path).relative_to("clearseek") if Path(path).is_relative_to("clearseek") else None
    if inside is None or ".." in inside.parts:
        return None
    try:
        return hashlib.sha256((Path(str(resources.files("clearseek"))) / inside).read_bytes()).hexdigest()
    except OSError:
        return None


def _files(root: Path, folders: tuple[str, ...]) -> dict[str, str]:
    paths = [
        path for folder in folders for path in sorted((root / folder).rglob("*")) if path.suffix in _SOURCE
    ]
    return {
        f"clearseek/{path.relative_to(root).as_posix()}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }
