"""Searches what was written to this machine's disks since a moment, for texts that must not be there."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

_PIECE = 1 << 20
_NO_DISKS = {
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
    "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "sysfs", "tracefs",
}  # fmt: skip


def find(texts: Sequence[str], since: float, root: Path = Path("/")) -> dict[str, list[str]]:
    """In which files each text stands, in their names or in what they hold, as UTF-8 or UTF-16.

    Files below `root` that were changed `since` (seconds since 1970) are read; those that may not be read are left out:
    who runs this could not have written them, either.
    """
    found: dict[str, list[str]] = {text: [] for text in texts}
    wanted = {text: (text.encode(), text.encode("utf-16-le")) for text in texts}
    for path in changed(since, root):
        for text in _in_file(path, wanted):
            found[text].append(path)
    return found


def changed(since: float, root: Path) -> Iterator[str]:
    """Files that were written, made or moved since then."""
    skipped = _mounts_without_files()
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in skipped]
        for name in files:
            path = os.path.join(folder, name)
            try:
                told = os.lstat(path)
            except OSError:
                continue  # gone meanwhile
            if stat.S_ISREG(told.st_mode) and max(told.st_mtime, told.st_ctime) >= since:
                yield path


def _in_file(path: str, wanted: dict[str, tuple[bytes, bytes]]) -> set[str]:
    found = {text for text in wanted if text in path}
    overlap = max(len(one) for forms in wanted.values() for one in forms)
    before = b""
    try:
        with open(path, "rb") as file:
            while piece := file.read(_PIECE):
                held = before + piece
                found |= {text for text, forms in wanted.items() if any(one in held for one in forms)}
                before = held[-overlap:]
    except OSError:
        pass
    return found


def _mounts_without_files() -> set[str]:
    try:
        rows = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return set()  # no Linux
    return {row[1] for row in rows if row[2] in _NO_DISKS}
