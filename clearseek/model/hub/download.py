"""One file from the Hub: resumed where it was left, checked by its hash, renamed when it is whole."""

import contextlib
import hashlib
import http.client
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clearseek.config.errors import RunError
from clearseek.model.hub.choose import RemoteFile
from clearseek.model.hub.client import Broken, Hub, reason

_CHUNK_BYTES = 2**20
_PARTIAL = 206
_TOO_FAR = "HTTP 416"
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0)  # before asking again, while nothing comes


def is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether a file is there already, with the size and the hash that the Hub says."""
    return path.is_file() and path.stat().st_size == file.size and _fits(path, file)


def download(
    hub: Hub,
    url: str,
    file: RemoteFile,
    path: Path,
    each: Callable[[int, int], None] = lambda done, total: None,
    pauses: tuple[float, ...] = PAUSES_SECONDS,
) -> None:
    """Fetch `file` from `url` to `path`; what came before an interruption is kept beside it and built on.

    A broken or stalled connection is tried again as long as bytes come, and after each of `pauses` while none do.
    Raises RunError when that is over, for content that is not what the Hub says, and when the disk refuses.
    """
    partial = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while _size(partial) < file.size or not partial.exists():
        before = _size(partial)
        try:
            _continue(hub, url, file, partial, each)
        except Broken as error:
            failures = 0 if _size(partial) > before else failures + 1
            if failures > len(pauses):
                raise RunError(
                    f"{file.path}: the connection fails again and again ({error}); the same command resumes"
                ) from error
            time.sleep(pauses[failures - 1] if failures else 0)
    if not _fits(partial, file):
        partial.unlink()
        raise RunError(f"{file.path}: what came is not what the Hub says it is, and is removed; try again")
    os.replace(partial, path)


def _continue(hub: Hub, url: str, file: RemoteFile, partial: Path, each: Callable[[int, int], None]) -> None:
    """Append to `partial` what is missing; raises Broken where the connection ends before that."""
    start = _size(partial)
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        answer = hub.open(url, file.path, headers)
    except Broken as error:
        if str(error).startswith(_TOO_FAR):
            partial.unlink()
        raise
    resumed = start > 0 and answer.status == _PARTIAL
    try:
        with contextlib.closing(answer), partial.open("ab" if resumed else "wb") as out:
            _copy(answer, out, start if resumed else 0, file, each)
    except OSError as error:  # the disk's: the network's is Broken by now
        what = f"{file.path} can't be written ({error.strerror or error})"
        raise RunError(f"{what}; make room, and the same command resumes") from error


def _copy(answer: Any, out: Any, done: int, file: RemoteFile, each: Callable[[int, int], None]) -> None:
    each(done, file.size)
    while done < file.size:
        try:
            chunk = answer.read1(min(_CHUNK_BYTES, file.size - done))
        except (OSError, http.client.HTTPException) as error:
            raise Broken(reason(error)) from error
        if not chunk:
            raise Broken(f"ended after {done:,} of {file.size:,} bytes")
        out.write(chunk)
        done += len(chunk)
        each(done, file.size)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fits(path: Path, file: RemoteFile) -> bool:
    """Whether a file has the hash that the Hub says: sha256 of its content, or git's id of it as a blob."""
    if path.stat().st_size != file.size:
        return False
    with path.open("rb") as opened:
        if file.sha256:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
        blob = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
        while chunk := opened.read(_CHUNK_BYTES):
            blob.update(chunk)
        return file.blob_id is None or blob.hexdigest() == file.blob_id
