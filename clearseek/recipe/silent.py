"""The run's files as every rank but the first holds them: they keep count and write nothing."""

from typing import Any

from clearseek.ledger.log import Ledger
from clearseek.ledger.timings import Timings


class SilentLedger(Ledger):
    """Counts the lines that the first rank writes."""

    def __init__(self, num_lines: int) -> None:
        self._cursor = num_lines

    def rewind(self, num_lines: int) -> None:
        """Go back as the first rank does."""
        self._cursor = num_lines

    def append(self, kind: str, stage: str | None = None, **fields: Any) -> None:
        """Count one line."""
        self._cursor += 1

    def sync(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""


class SilentTimings(Timings):
    """Measures nothing."""

    def __init__(self) -> None:
        self.session, self.went_back_seconds = 0, 0.0

    def append(self, kind: str, stage: str, step: int | None = None, **fields: Any) -> dict[str, Any]:
        """Measure nothing."""
        return {}

    def start_stage(self, stage: str) -> None:
        """Measure nothing."""

    def finish_stage(self, stage: str, **fields: Any) -> dict[str, Any]:
        """Measure nothing."""
        return {}

    def close(self) -> None:
        """Nothing is open."""
