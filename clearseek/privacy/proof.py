"""The privacy test: clearseek at work where there is no network, watched, and its disks searched afterwards."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from clearseek.config.errors import RunError
from clearseek.privacy import space

_SECONDS = 3600.0
_LEDGER = "ledger.jsonl"


@dataclass(frozen=True)
class Row:
    """One thing that was tested."""

    what: str
    is_right: bool
    found: str


@dataclass(frozen=True)
class Proof:
    """All of them. `isolation`: "namespace", or "hook" where the machine lets nobody make a space without a network."""

    isolation: str
    rows: tuple[Row, ...]

    @property
    def is_right(self) -> bool:
        """Whether nothing left, and nothing stayed."""
        return all(row.is_right for row in self.rows)

    @property
    def facts(self) -> dict[str, Any]:
        """As a record holds them."""
        tested = {row.what: {"right": row.is_right, "found": row.found} for row in self.rows}
        outcome = "nothing left" if self.is_right else "failed"
        return {"outcome": outcome, "isolation": self.isolation, "tested": tested}


def prove(model: Path, run: Path | None = None) -> Proof:
    """Run it all on a model, or on a run and its model. RunError where it can't be run."""
    isolation = "namespace" if space.can_enter() else "hook"
    before = _ledger_hash(run)
    with tempfile.TemporaryDirectory(prefix="clearseek-privacy-") as home:
        told = _inside(isolation, home, model, run)
    rows = [*_network(told), *_activities(told), *_traces(told), *_packages(told)]
    if run is not None:
        same = _ledger_hash(run) == before
        rows.append(Row("the run's ledger", same, "as it was" if same else "it has changed"))
    return Proof(isolation, tuple(rows))


def _inside(isolation: str, home: str, model: Path, run: Path | None) -> dict[str, Any]:
    enter = space.ENTER if isolation == "namespace" else ()
    names = [home, str(model.resolve()), "-" if run is None else str(run.resolve()), isolation]
    command = [*enter, sys.executable, "-m", "clearseek.privacy.inside", *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise RunError(f"the privacy test could not be run: {done.stderr.strip()[-500:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _network(told: dict[str, Any]) -> list[Row]:
    attempts = [f"{one['attempt']} to {one['to']} by {' '.join(one['command'])}" for one in told["attempts"]]
    watched = Row("attempts to reach another machine", not attempts, "; ".join(attempts) or "none")
    processes = Row("processes watched", told["processes"] > 0, str(told["processes"]))
    if told["isolation"] == "hook":
        return [watched, processes]
    alone = told["interfaces"] == ["lo"] and not told["reaches_elsewhere"]
    return [Row("network", alone, f"interfaces: {', '.join(told['interfaces'])}"), watched, processes]


def _activities(told: dict[str, Any]) -> list[Row]:
    return [Row(name, outcome == "done", outcome) for name, outcome in told["activities"].items()]


def _traces(told: dict[str, Any]) -> list[Row]:
    left = told["canary_found"]
    return [
        Row("what was typed, on the disks", not left, ", ".join(left) or "nowhere"),
        Row("the search itself", told["kept_found"] > 0, f"finds a kept chat in {told['kept_found']} files"),
    ]


def _packages(told: dict[str, Any]) -> list[Row]:
    names = sorted({*told["denied_packages"], *told["denied_modules"]})
    return [Row("packages that send home", not names, ", ".join(names) or "none needed, none imported")]


def _ledger_hash(run: Path | None) -> str | None:
    if run is None or not (run / _LEDGER).is_file():
        return None
    return sha256((run / _LEDGER).read_bytes()).hexdigest()
