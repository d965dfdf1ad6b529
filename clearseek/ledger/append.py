"""A file that only grows by whole lines: what the ledger and the clock file both write through.

Only one process may hold it. A line is written whole or not at all as far as one process can see to it:
a kill in the middle leaves a torn last line, which the next opening cuts off; a full disk leaves nothing.
"""

import contextlib
import errno
import os
import sys
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from clearseek.config.errors import RunError
from clearseek.ledger.lines import split_lines

_REASONS = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your disk quota is used up"}


class LineFile:
    """Opens (or makes) `path`, cuts off a torn last line and keeps the whole ones in `lines`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._fd = self._open()
        _close_in_forked_children(self)
        try:
            self._take_lock()
            self.lines = self._read_whole_lines()
        except BaseException:
            self.close()
            raise

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, flags, 0o644)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be opened for writing ({_reason(error)})") from error

    def _take_lock(self) -> None:
        for _ in range(20):  # `is_being_written` holds the lock for an instant
            if lock(self._fd):
                return
            time.sleep(0.01)
        raise RunError(f"{self.path}: another process is writing this run; wait for it or use another --out")

    def _read_whole_lines(self) -> list[bytes]:
        lines, torn = split_lines(self.path.read_bytes())
        if torn:
            os.truncate(self.path, sum(map(len, lines)))
        return lines

    def write(self, line: bytes) -> None:
        """Appends one whole line. Raises RunError with the file as it was when the disk refuses it."""
        size = os.fstat(self._fd).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError as error:
            with contextlib.suppress(OSError):  # what stays is a torn line, which the next opening cuts off
                os.ftruncate(self._fd, size)
            raise RunError(
                f"{self.path}: line {len(self.lines)} could not be written ({_reason(error)}); nothing "
                "earlier is lost: make room and run the same command again to continue"
            ) from error
        self.lines.append(line)

    def sync(self) -> None:
        """Returns once every line is on the disk itself; call it before renaming a checkpoint into place."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise RunError(f"{self.path}: could not be flushed to disk ({_reason(error)})") from error

    def close(self) -> None:
        """Lets go of the file; closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock(fd: int) -> bool:
    """Takes the exclusive lock that marks a file as being written; False when another holds it."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nothing to learn from it
        return True
    return True


def is_being_written(path: str | os.PathLike[str]) -> bool:
    """Whether a living process on this machine holds the file open for appending."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not lock(fd)
    finally:
        os.close(fd)


def _close_in_forked_children(file: LineFile) -> None:
    """A forked worker that outlives its killed parent must not keep the lock of the run."""
    reference = weakref.ref(file)

    def close_there() -> None:
        if (there := reference()) is not None:
            there.close()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close_there)


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, error.strerror or str(error))
