"""Signs a text with the user's key, as a note that anyone can check, and reads one back.

A seal is such a note, and so is a statement: what is true of a run but can't stand in its ledger, which tells no time
and ends with the run. Format: c2sp.org/signed-note; `verifier.open_note` checks it.
"""

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearseek.config.errors import RunError
from clearseek.ledger.keys import private_key
from clearseek.ledger.lines import encode_line, read_back
from clearseek.ledger.verifier import KEY, Wrong, key_identity, open_note, parse_key


def signed_note(name: str, body: str) -> tuple[str, str]:
    """A note with `body` signed under `name`, and the line NAME+ID+KEY to check it with."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(private_key())
    public = key.public_key().public_bytes_raw()
    identity = key_identity(name, public)
    signature = base64.b64encode(identity + key.sign(body.encode())).decode()
    key_line = f"{name}+{identity.hex()}+{base64.b64encode(bytes([1]) + public).decode()}\n"
    return f"{body}\n— {name} {signature}\n", key_line


def signed_statement(log_name: str, kind: str, facts: Mapping[str, Any]) -> tuple[str, str]:
    """A note of two lines, LOG_NAME/KIND and one JSON object in the ledger's form; and the key to check it with."""
    line = encode_line({"kind": kind, **facts}, canonical=True).decode()
    return signed_note(log_name, f"{log_name}/{kind}\n{line}")


def read_statement(path: Path, kind: str, key: str) -> dict[str, Any]:
    """The facts of a statement that `key` (NAME+ID+KEY) signed. RunError where it is missing, altered or of another."""
    try:
        name, identity, public = parse_key(key.strip())
        body = open_note(path.read_text(encoding="utf-8"), name, identity, public)
        origin, line = body.rstrip("\n").split("\n")
        facts = read_back(json.loads(line))
    except Wrong as error:
        reason = str(error).removeprefix("checkpoint: ").replace("checkpoint is", "it is")
        raise RunError(f"{path}: {reason}") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise RunError(f"{path} is no statement of a run: it was damaged") from None
    if origin != f"{name}/{kind}":
        raise RunError(f"{path} states {origin}, not {name}/{kind}: it belongs elsewhere")
    return {key: value for key, value in facts.items() if key != "kind"}


def key_of_run(run: Path) -> str:
    """The NAME+ID+KEY that a run says it is sealed with. RunError for a run that isn't sealed."""
    try:
        return (run / KEY).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise RunError(f"{run} is not sealed: it has no {KEY}; let `clearseek run` finish it") from None


def replace_text(path: Path, text: str, what: str) -> None:
    """Put `text` in place of a file in one move. RunError, naming `what` it is, where the disk refuses."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise RunError(
            f"{path}: the {what} could not be written ({error.strerror}); nothing earlier is lost"
        ) from None
