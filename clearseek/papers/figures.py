"""Figures for generated documents: each is read from a record beside the document, and says so.

What a template writes with `figure` is what `clearseek claims check` finds and holds to the record.
"""

from collections.abc import Mapping
from typing import Any

from clearseek.claims.check import expanded
from clearseek.claims.figures import UNITS


class Figures:
    """Writes numbers of records (by file name) in a unit, and behind a block the comment that says whence."""

    def __init__(self, records: Mapping[str, Any]) -> None:
        self.records = records
        self._paths: list[tuple[str, str]] = []

    def figure(self, record: str, path: str, unit: str, digits: int = 1) -> str:
        """The number at a path, in `unit`; `n/a` where there is none, which is no figure."""
        value = self._taken(record, path)
        return "n/a" if value is None else f"{value / float(UNITS[unit]):,.{digits}f} {unit}"

    def count(self, record: str, path: str) -> str:
        """The whole number at a path; `not counted` where there is none."""
        value = self._taken(record, path)
        return "not counted" if value is None else f"{value:,}"

    def small(self, record: str, path: str) -> str:
        """The number at a path with its exponent, such as 9.54e-07; `n/a` where there is none."""
        value = self._taken(record, path)
        return "n/a" if value is None else f"{value:.2e}"

    def claim(self) -> str:
        """The comment for the figures written since the last one; nothing where there were none."""
        if not self._paths:
            return ""
        first = self._paths[0][0]
        words = [path if record == first else f"{record}:{path}" for record, path in self._paths]
        self._paths = []
        return f"<!-- claim: {first} {' '.join(words)} -->"

    def _taken(self, record: str, path: str) -> int | float | None:
        """The number at a path, which the next claim names; None where there is none."""
        value = self._at(record, path)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        self._paths.append((record, path))
        return value

    def _at(self, record: str, path: str) -> Any:
        here = self.records[record]
        (only,) = expanded(path)
        for key in only.split("."):
            if isinstance(here, list):
                named = [item for item in here if isinstance(item, dict) and item.get("name") == key]
                here = (
                    named[0] if named else here[int(key)] if key.isdigit() and int(key) < len(here) else None
                )
            else:
                here = here.get(key) if isinstance(here, dict) else None
        return here
