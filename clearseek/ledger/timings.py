"""The clock of a run: wall time, processor time, energy, rates and memory, kept apart from the ledger.

Nothing here is deterministic, and nothing here is needed to resume: a run killed and continued has several
sessions, each measured by itself, and the report adds them up.
"""

import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from clearseek.ledger.append import LineFile
from clearseek.ledger.energy import EnergyMeter
from clearseek.ledger.lines import encode_line, tolerant_records
from clearseek.ledger.machine import describe_machine
from clearseek.ledger.process import age_seconds, cpu_seconds, peak_memory_bytes


class Timings(LineFile):
    """Opens a new session in `path`: a line with the machine, then what `append` and the stages measure.

    `gpu` is the number of the CUDA device that the run computes on. Where energy can be read, every line has
    `cpu_joules` and `gpu_joules` since the line before.
    """

    def __init__(self, path: str | os.PathLike[str], gpu: int | None = None) -> None:
        super().__init__(path)
        last = max((float(record.get("time") or 0) for record in read_timings(path)), default=0.0)
        self.went_back_seconds = max(
            0.0, last - time.time()
        )  # since an earlier session: the clock was changed
        self._energy = EnergyMeter(gpu)
        self.session = sum(b'"kind":"session"' in line for line in self.lines) + 1
        self._mark = self._stage_mark = (time.monotonic() - age_seconds(), 0.0)
        self._write(_measured({"kind": "session", "machine": describe_machine()}, self._mark))

    def append(self, kind: str, stage: str, step: int | None = None, **fields: Any) -> dict[str, Any]:
        """Writes one measurement and returns it.

        Left out, `wall_seconds` and `cpu_seconds` are those since the last line, `peak_memory_bytes` that of
        this process and its children, and `tokens_per_second` follows from `tokens`.
        """
        record: dict[str, Any] = {"kind": kind, "stage": stage}
        if step is not None:
            record["step"] = step
        return self._write(_measured(record | fields, self._mark))

    def start_stage(self, stage: str) -> None:
        """Marks where a stage begins in this session; a session that is killed is timed from here."""
        self._write({"kind": "stage_started", "stage": stage})
        self._stage_mark = self._mark

    def finish_stage(self, stage: str, **fields: Any) -> dict[str, Any]:
        """Writes the stage's whole time in this session, measured from `start_stage`."""
        return self._write(_measured({"kind": "stage", "stage": stage} | fields, self._stage_mark))

    def _write(self, record: dict[str, Any]) -> dict[str, Any]:
        record = record | self._energy.read() | {"time": time.time(), "session": self.session}
        self.write(encode_line(record))
        self._mark = (time.monotonic(), cpu_seconds())
        return record


def read_timings(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The measurements that can be read; torn and foreign lines are passed over, a missing file has none."""
    return [record for record in tolerant_records(path) if isinstance(record.get("kind"), str)]


def inherit_timings(path: Path, target: Path, stages: Collection[str]) -> None:
    """Begin a fork's clock with how long the stages took that it takes over, and the sessions that they ran in."""
    records = read_timings(path)
    last = max((record["session"] for record in records if record.get("stage") in stages), default=0)
    taken = [
        record
        for record in records
        if record.get("stage") in stages or (record["kind"] == "session" and record["session"] <= last)
    ]
    target.write_bytes(b"".join(map(encode_line, taken)))


def _measured(record: dict[str, Any], since: tuple[float, float]) -> dict[str, Any]:
    wall, cpu = time.monotonic() - since[0], max(0.0, cpu_seconds() - since[1])
    measured = {"wall_seconds": wall, "cpu_seconds": cpu} | record
    if measured.get("peak_memory_bytes") is None:
        measured["peak_memory_bytes"] = peak_memory_bytes()
    if "tokens" in record and "tokens_per_second" not in record and measured["wall_seconds"] > 0:
        measured["tokens_per_second"] = record["tokens"] / measured["wall_seconds"]
    return measured
