"""The file that keeps the hash of every tensor behind every hash of a state in the ledger."""

import json
from pathlib import Path

from clearseek.train.state_hash import Leaves


class LeavesFile:
    """`leaves.jsonl`: for every hash of a state a line with its step and its tensors' hashes.

    Names stand where they changed; a line without them has those of the line before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: list[str] | None = None

    def append(self, step: int, leaves: Leaves) -> None:
        """Write a line; nothing on ranks that hold no tensors."""
        if not leaves:
            return
        names = list(leaves)
        line = {"step": step} | ({} if names == self._last_names() else {"tensors": names})
        line["sha256"] = list(leaves.values())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._names = names

    def rewind(self, step: int) -> None:
        """Drop what comes after a step, and a torn last line."""
        lines = [line for line in self._lines() if json.loads(line)["step"] <= step]
        self._names = None
        if self.path.exists():
            partial = self.path.with_suffix(".partial")
            partial.write_bytes(b"".join(lines))
            partial.replace(self.path)

    def read(self) -> dict[int, Leaves]:
        """Leaves by step; empty where the stage left none."""
        found: dict[int, Leaves] = {}
        names: list[str] = []
        for line in self._lines():
            record = json.loads(line)
            names = record.get("tensors", names)
            found[record["step"]] = dict(zip(names, record["sha256"], strict=True))
        return found

    def _lines(self) -> list[bytes]:
        content = self.path.read_bytes() if self.path.exists() else b""
        return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]

    def _last_names(self) -> list[str] | None:
        if self._names is None and self.path.exists():
            found = self.read()
            self._names = list(found[max(found)]) if found else None
        return self._names
