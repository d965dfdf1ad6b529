"""Seals a ledger: a signed note of how many lines it has and the root of their tree, made anew when a stage ends.

Formats: c2sp.org/tlog-checkpoint and c2sp.org/signed-note; `verifier.py` checks them.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clearseek.config.errors import RunError
from clearseek.ledger.keys import public_key
from clearseek.ledger.lines import file_sha256
from clearseek.ledger.note import replace_text, signed_note
from clearseek.ledger.verifier import (
    COST,
    KEY,
    LEDGER,
    SEAL,
    SEALED_FILES,
    SEALED_FOLDERS,
    Wrong,
    key_identity,
    leaf_hash,
    named_files,
    open_note,
    parse_checkpoint,
    parse_key,
    root_of,
)


def seal(run: Path, lines: Sequence[bytes]) -> None:
    """Sign the ledger of a run as it stands; `lines` with their newlines. RunError where the note can't be written."""
    root = root_of([line.removesuffix(b"\n") for line in lines])
    name = log_name(lines[0])
    body = f"{name}\n{len(lines)}\n{base64.b64encode(root).decode()}\n"
    note, key_line = signed_note(name, body)
    replace_text(run / KEY, key_line, "seal")
    replace_text(run / SEAL, note, "seal")


def log_name(first_line: bytes) -> str:
    """A name for this log alone, from its first line."""
    return f"clearseek/{leaf_hash(first_line).hex()[:16]}"


def is_complete(run: Path) -> bool:
    """Whether a run has ended and its seal covers its last line: from then on nothing may be written into it."""
    try:
        size, _ = parse_checkpoint((run / SEAL).read_text(encoding="utf-8").partition("\n\n")[0])
        lines = (run / LEDGER).read_bytes().split(b"\n")[:-1]
    except (OSError, UnicodeDecodeError, Wrong):
        return False
    return 0 < size == len(lines) and b'"kind":"run_finished"' in lines[-1]


def is_own(run: Path) -> bool:
    """Whether no other key than this user's has sealed a run: by its `ledger.pub`, or its notes where that is lost."""
    notes = [name for name in (SEAL, COST) if (run / name).exists()]
    try:
        if (run / KEY).exists():
            return parse_key((run / KEY).read_text(encoding="utf-8").strip())[2] == public_key()
        if notes:
            first_line = (run / LEDGER).read_bytes().splitlines(keepends=True)[0]
            name, key = log_name(first_line), public_key()
            for note in notes:
                open_note((run / note).read_text(encoding="utf-8"), name, key_identity(name, key), key, note)
    except (Wrong, OSError, UnicodeDecodeError, IndexError):
        return False
    return True


def check_own(run: Path) -> None:
    """RunError where another key has sealed a run: nothing may be written into it, not even what it lacks."""
    if not is_own(run):
        raise RunError(
            f"{run} was sealed with another key than yours, or its {KEY} was damaged: nothing is written into it; set "
            "CLEARSEEK_LEDGER_KEY to the file of the key that sealed it, or give --out for a run of your own"
        )


def check_not_cut(run: Path, num_lines: int) -> None:
    """RunError where a run has fewer lines than its seal counts: nothing may be written behind a cut."""
    try:
        size, _ = parse_checkpoint((run / SEAL).read_text(encoding="utf-8").partition("\n\n")[0])
    except FileNotFoundError:
        return
    except (Wrong, OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"{run / SEAL} is damaged ({error}); restore the run from a copy, or begin another"
        ) from None
    if size > num_lines:
        raise RunError(
            f"{run / LEDGER} has {num_lines} lines, its seal counts {size}: the end is missing; restore the file, "
            "or begin another run"
        )


def unnamed_files(run: Path, records: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """What the ledger vouches for and no record names yet, as tables of path and SHA-256, in order of their paths."""
    named = {file["path"] for record in records for file in named_files(record)}
    there = [run / name for name in SEALED_FILES if (run / name).is_file()]
    for folder in SEALED_FOLDERS:
        there += [path for path in (run / folder).rglob("*") if path.is_file()]
    paths = sorted(path.relative_to(run).as_posix() for path in there)
    return [{"path": path, "sha256": file_sha256(run / path)} for path in paths if path not in named]
