"""Directories that are whole or not there, whatever kills the process or fills the disk.

Apart from `checkpoint` because it knows nothing of models: train states are written the same way.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clearseek.config.errors import RunError

_FULL = {errno.ENOSPC: "disk full", errno.EDQUOT: "disk quota used up", errno.EFBIG: "file size limit met"}


@contextmanager
def write_directory(final: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `final` at once when the block ends without an error.

    It is written beside, synced and renamed. What was at `final` before is replaced; whatever goes wrong, it
    stays. Only one process at a time may write a `final`. Raises RunError when the disk refuses.
    """
    partial, replaced = _beside(final, "partial"), _beside(final, "replaced")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _clear_stale(final, partial, replaced)
        partial.mkdir()
        yield partial
        _sync(partial)
        if final.exists():
            os.replace(final, replaced)
        os.replace(partial, final)
        _sync_entry(final.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(_refusal(error, final)) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _beside(final: Path, role: str) -> Path:
    return final.parent / f".{final.name}.{role}"


def _clear_stale(final: Path, partial: Path, replaced: Path) -> None:
    """Undo what a killed process left: a half-written directory, or an old one moved away for nothing."""
    if partial.exists():
        shutil.rmtree(partial)
    if replaced.exists() and not final.exists():
        os.replace(replaced, final)
    elif replaced.exists():
        shutil.rmtree(replaced)


def _sync(directory: Path) -> None:
    """Bring every file and directory entry under `directory` to the disk."""
    for parent, _, names in os.walk(directory, topdown=False):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
                os.fsync(file.fileno())
        _sync_entry(Path(parent))


def _sync_entry(directory: Path) -> None:
    with contextlib.suppress(PermissionError):  # Windows can't open a directory
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _refusal(error: OSError, final: Path) -> str:
    if error.errno in _FULL:
        what = f"{_FULL[error.errno]} while writing {final}"
        return f"{what}; earlier checkpoints are intact: free some space and run the same command again"
    return f"{final} can't be written ({error.strerror or error}); earlier checkpoints are intact"
