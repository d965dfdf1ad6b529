"""Witnesses: who computed a run again, or tested its privacy, signs what came out, beside the run and never in it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearseek.config.errors import RunError
from clearseek.ledger.note import replace_text, signed_note, signed_statement
from clearseek.ledger.verifier import SEAL, Wrong, parse_checkpoint


def write_witness(run: Path, facts: Mapping[str, Any], kind: str = "replay") -> Path:
    """Sign `facts` about this run in `RUN.witness/`. RunError for a run that has no seal to speak of.

    Those of a replay are `*.note`, which the verifier counts; others are named for their kind.
    """
    try:
        body = (run / SEAL).read_text(encoding="utf-8").partition("\n\n")[0]
        size, root = parse_checkpoint(body)
    except (OSError, UnicodeDecodeError, Wrong) as error:
        raise RunError(f"{run} has no seal that a witness could speak of ({error})") from None
    origin = body.splitlines()[0]
    key = signed_note(origin, "")[1].strip()
    told = {"key": key, "size": size, "root": root.hex(), "time": int(time.time())}
    note, _ = signed_statement(origin, kind, told | dict(facts))
    folder = run.with_name(f"{run.resolve().name}.witness")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{folder} can't be made ({error.strerror}); copy the run to where you may write"
        ) from None
    path = folder / f"{key.split('+')[1]}-{told['time']}.{'note' if kind == 'replay' else kind}"
    replace_text(path, note, "witness")
    return path
