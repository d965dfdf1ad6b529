"""What made a run, by hash where it can be told: this package's code, its checkout, the libraries that compute."""

import hashlib
import os
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent.parent
_SUFFIXES = (".py", ".h", ".cpp")
_GIT_SECONDS = 5.0
_COMPUTING = (
    "math-verify",
    "numpy",
    "safetensors",
    "tokenizers",
)  # besides torch, whose build stands in its version


@cache
def code_sha256() -> str:
    """SHA-256 over this package's Python and C++ sources, which a shell can tell as well:

    `find clearseek -name '*.py' -o -name '*.h' -o -name '*.cpp' | LC_ALL=C sort | xargs sha256sum | sha256sum`
    """
    return hash_of_sources(_PACKAGE)


def hash_of_sources(package: Path) -> str:
    """The same of another copy, given by its folder."""
    paths = [
        Path(folder, name)
        for folder, _, names in os.walk(package)
        for name in names
        if name.endswith(_SUFFIXES)
    ]
    listed = {path.relative_to(package.parent).as_posix(): path for path in paths}
    whole = hashlib.sha256()
    for name in sorted(listed):
        whole.update(f"{hashlib.sha256(listed[name].read_bytes()).hexdigest()}  {name}\n".encode())
    return whole.hexdigest()


def checkout(package: Path = _PACKAGE) -> dict[str, Any] | None:
    """`commit`, and whether the package is `dirty`, other than there; None outside of a checkout, or without git."""
    if not (package.parent / ".git").exists():
        return None
    command = [
        "git",
        "--no-optional-locks",
        "-c",
        "core.fsmonitor=false",
        "status",
        "--porcelain=v2",
        "--branch",
    ]
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        told = subprocess.run(
            [*command, "--", package.name],
            cwd=package.parent,
            env=own,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = told.stdout.decode("utf-8", "replace").splitlines()
    commit = next(
        (line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")), ""
    )
    if not commit or commit == "(initial)":
        return None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def computing_versions() -> dict[str, str]:
    """Versions of the libraries, besides torch, on which it depends what comes out."""
    return {name: metadata.version(name) for name in _COMPUTING}
