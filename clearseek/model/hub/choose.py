"""Which files of a repository are fetched: weights in safe formats and what belongs to them, never a pickle or code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any

from clearseek.config.errors import InputError, RunError

# what may be fetched at all
SAFE = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.txt",
    "*.md",
    "*.gguf",
    "tokenizer.model",
    "*.tiktoken",
    "LICEN[SC]E*",
    "NOTICE*",
)
# of that, what is left out unless --include asks for it: other formats and copies of the same weights
_UNASKED = ("*.gguf", "consolidated*", "*/*")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_ALSO = ("additional_chat_templates/*",)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository: its size in bytes, and its sha256 or, for small ones, its git blob id."""

    path: str
    size: int
    sha256: str | None
    blob_id: str | None


def files_of(repository: Mapping[str, Any]) -> list[RemoteFile]:
    """The files that the Hub lists; raises RunError for an entry that is none, or would leave the directory."""
    found = []
    for entry in repository["siblings"]:
        path, size = entry.get("rfilename"), entry.get("size")
        pure = PurePosixPath(str(path))
        if (
            not isinstance(path, str)
            or pure.is_absolute()
            or ".." in pure.parts
            or "\\" in path
            or not pure.parts
        ):
            raise RunError(f"the Hub lists a file {path!r}, which would be written outside the directory")
        if not isinstance(size, int) or size < 0:
            raise RunError(f"the Hub does not say how large {path} is; check HF_ENDPOINT")
        found.append(RemoteFile(path, size, (entry.get("lfs") or {}).get("sha256"), entry.get("blobId")))
    return found


def chosen_files(
    files: Sequence[RemoteFile], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[RemoteFile]:
    """The files to fetch; `include` and `exclude` are shell patterns over their paths.

    Raises InputError for a pattern of `include` that no file matches which may be fetched, and where nothing is left.
    """
    safe = [file for file in files if _matches(PurePosixPath(file.path).name, SAFE)]
    for pattern in include:
        if not any(fnmatch(file.path, pattern) for file in safe):
            unsafe = next((file.path for file in files if fnmatch(file.path, pattern)), None)
            why = f"only {unsafe} and the like, which are never fetched" if unsafe else "no file"
            raise InputError(f"--include {pattern} matches {why}; the repository has {_some(safe)}")
    wanted = [file for file in safe if _is_wanted(file.path, include)]
    wanted = [file for file in wanted if not _matches(file.path, exclude)]
    if not include and not exclude:
        _check_weights(files, wanted)
    if not wanted:
        raise InputError(
            f"nothing to fetch: the repository has {_some(files)}; pickles and code are never fetched"
        )
    return wanted


def _check_weights(files: Sequence[RemoteFile], wanted: Sequence[RemoteFile]) -> None:
    """Raise InputError for a repository whose weights would be left out: pickles only, or a choice of GGUF files."""
    if any(file.path.endswith(".safetensors") for file in wanted):
        return
    ggufs = [file for file in files if file.path.endswith(".gguf")]
    if ggufs:
        raise InputError(f'the repository has GGUF files: choose with --include, such as "{ggufs[0].path}"')
    pickle = next((file.path for file in files if _matches(file.path, _PICKLES)), None)
    if pickle:
        raise InputError(
            f"the weights are only there as pickles ({pickle}), which can run code when opened and are never fetched; "
            'look for a revision with safetensors. --include "*.json" fetches the rest'
        )


def _is_wanted(path: str, include: Sequence[str]) -> bool:
    if include:
        return _matches(path, include)
    return _matches(path, _ALSO) or not _matches(path, _UNASKED)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _some(files: Sequence[RemoteFile]) -> str:
    names = [file.path for file in files[:5]]
    return ", ".join(names) + (", …" if len(files) > len(names) else "") if names else "no files"
