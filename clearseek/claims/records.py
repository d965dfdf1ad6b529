"""Makes records that figures can point to: of a sealed run, or of a benchmark's own output."""

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clearseek.claims.check import RECORDS
from clearseek.config.errors import InputError, RunError
from clearseek.ledger.cost import NOTE, cost_of
from clearseek.ledger.note import replace_text
from clearseek.ledger.report import build_report
from clearseek.ledger.verifier import Wrong, verify_run

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


def record_run(run: Path, printed: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """A finished run's figures, with the root of the ledger that they come from. RunError where it doesn't verify.

    `printed` makes of a report the table that `clearseek run` prints at the end.
    """
    try:
        found = verify_run(run)
    except Wrong as error:
        raise RunError(f"{run}: {error}; only what verifies can be a record") from None
    report = build_report(run)
    if report["state"] != "finished":
        raise InputError(
            f"{run} is not finished; let `clearseek run` finish it before its figures are recorded"
        )
    report.pop("ledger")
    return {
        "of": "run",
        "ledger": {"lines": found.sealed, "root": found.root, "signer": found.signer},
        "cost_is_signed": (run / NOTE).exists(),
        "printed": printed(report),
        **report,
        "cost": cost_of(run),
    }


def record_output(path: Path, command: str, date: str | None = None) -> dict[str, Any]:
    """What a benchmark printed: a JSON object. InputError where it is none."""
    try:
        output = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); give what a benchmark printed with --json") from None
    if not isinstance(output, dict):
        raise InputError(f"{path} holds no JSON object")
    day = date or datetime.date.today().isoformat()
    return {"of": "benchmark", "command": command, "date": day, **output}


def write_record(name: str, record: dict[str, Any], root: Path = Path()) -> Path:
    """Put a record in its place. InputError for a name that can't be one."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no name of a record: small letters, digits and hyphens, such as r1-mini-seed-1"
        )
    if not (root / "docs").is_dir():
        raise InputError("there is no docs/ here; call it in clearseek's checkout")
    path = root / RECORDS / f"{name}.json"
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"{path.parent}: cannot be made ({error.strerror})") from None
    replace_text(path, json.dumps(record, ensure_ascii=False, indent=1) + "\n", "record")
    return path
