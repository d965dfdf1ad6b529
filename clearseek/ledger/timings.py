"""The clock of a run: wall time, processor time, rates and memory, kept apart from the ledger.

Nothing here is deterministic, and nothing here is needed to resume: a run killed and continued has several
sessions, each measured by itself, and the report adds them up.
"""

import os
import sys
import time
from typing import Any

from clearseek.ledger.append import LineFile
from clearseek.ledger.lines import encode_line, tolerant_records
from clearseek.ledger.machine import describe_machine


class Timings(LineFile):
    """Opens a new session in `path`: a line with the machine, then what `append` and `stage` measure."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.session = sum(b'"kind":"session"' in line for line in self.lines) + 1
        self._mark = self._stage_mark = clocks()
        self._write({"kind": "session", "machine": describe_machine()})

    def append(self, kind: str, stage: str, step: int | None = None, **fields: Any) -> dict[str, Any]:
        """Writes one measurement and returns it.

        Left out, `wall_seconds` and `cpu_seconds` are those since the last line, `peak_memory_bytes` that of
        this process, and `tokens_per_second` follows from `tokens`.
        """
        record: dict[str, Any] = {"kind": kind, "stage": stage}
        if step is not None:
            record["step"] = step
        return self._write(record | _measured(fields, self._mark))

    def start_stage(self, stage: str) -> None:
        """Marks where a stage begins in this session; a session that is killed is timed from here."""
        self._write({"kind": "stage_started", "stage": stage})
        self._stage_mark = self._mark

    def finish_stage(self, stage: str, **fields: Any) -> dict[str, Any]:
        """Writes the stage's whole time in this session, measured from `start_stage`."""
        return self._write({"kind": "stage", "stage": stage} | _measured(fields, self._stage_mark))

    def _write(self, record: dict[str, Any]) -> dict[str, Any]:
        record = record | {"time": time.time(), "session": self.session}
        self.write(encode_line(record))
        self._mark = clocks()
        return record


def read_timings(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The measurements that can be read; torn and foreign lines are passed over, a missing file has none."""
    return [record for record in tolerant_records(path) if isinstance(record.get("kind"), str)]


def clocks() -> tuple[float, float]:
    """Seconds on the wall and of processor time (this process and its finished children), from any zero."""
    times = os.times()
    return time.monotonic(), times.user + times.system + times.children_user + times.children_system


def peak_memory_bytes() -> int | None:
    """The most memory this process has held resident, None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


def _measured(fields: dict[str, Any], since: tuple[float, float]) -> dict[str, Any]:
    wall, cpu = clocks()
    measured = {"wall_seconds": wall - since[0], "cpu_seconds": cpu - since[1]} | fields
    if measured.get("peak_memory_bytes") is None:
        measured["peak_memory_bytes"] = peak_memory_bytes()
    if "tokens" in fields and "tokens_per_second" not in fields and measured["wall_seconds"] > 0:
        measured["tokens_per_second"] = fields["tokens"] / measured["wall_seconds"]
    return measured
