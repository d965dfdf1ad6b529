"""The code that made a run, room by room with the hash of every file: what the checklists count as code."""

import hashlib
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.ledger.code import code_sha256
from clearseek.ledger.record import table
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
    """Every source file by part, with its hash, and what each session of the run recorded of the code it ran.

    InputError where the last of them ran another version, or other code, than this.
    """
    made = (facts.record.run.get("versions") or {}).get("clearseek")
    if made != installed_version():
        raise InputError(
            f"{facts.run} was made by clearseek {made}, this is {installed_version()}: the papers of a run name the "
            "code that made it, so make them with that version"
        )
    _check_same(facts)
    root = Path(str(resources.files("clearseek")))
    parts = {name: _files(root, folders) for name, folders in PARTS.items()}
    return {
        "package": "clearseek",
        "version": made,
        "licence": CODE_LICENCE,
        "code_sha256": code_sha256(),
        "sessions": [
            {"line": one["line"]} | {name: one.get(name) for name in ("code_sha256", "checkout")}
            for one in facts.sessions
        ],
        "parts": parts,
    }


def _check_same(facts: RunFacts) -> None:
    """A run of an older clearseek, which recorded no hash, can't be told from one that this code made."""
    made, here = facts.record.run.get("code_sha256"), code_sha256()
    if made in (None, here):
        return
    commit = table(facts.record.run.get("checkout")).get("commit")
    raise InputError(
        f"{facts.run}: the code now is not the code that made the run (code_sha256 {str(made)[:16]}… in its ledger, "
        f"{here[:16]}… here); make the papers with that code{f', commit {commit[:12]}' if commit else ''}"
    )


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
