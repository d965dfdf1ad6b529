"""API keys: random, shown once, kept as hashes, compared in constant time."""

import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from clearseek.config.errors import InputError

_PREFIX = "cs-"
_BYTES = 32  # of randomness; so many need no slow hash


@dataclass(frozen=True)
class Key:
    """A key that is known: whose it is, and its SHA-256."""

    name: str
    digest: str


class Keys:
    """The keys that may ask."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = list(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def owner(self, key: str) -> str | None:
        """Whose key it is; None: nobody's. Takes as long whichever it is."""
        digest, found = _digest(key), None
        for known in self._keys:
            if hmac.compare_digest(known.digest, digest):
                found = known.name
        return found


def read_keys(path: Path) -> Keys:
    """The keys of a file, a line each: name, blank, SHA-256 in hexadecimal. InputError for any other line."""
    keys = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; make a first key: clearseek serve --new-key --api-key-file {path}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as a list of keys ({error})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, digest = line.rpartition(" ")
        if not name or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise InputError(
                f"{path}:{number}: not a name and a hash; make keys by clearseek serve --new-key --api-key-file {path}"
            )
        keys.append(Key(name, digest))
    return Keys(keys)


def new_key(path: Path, name: str) -> str:
    """A new key, whose hash is added to a file that only its owner may read; the key itself is kept nowhere."""
    if not name.strip() or "\n" in name:
        raise InputError("a key's name is a word or some, in one line")
    key = _PREFIX + secrets.token_urlsafe(_BYTES)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with open(descriptor, "a", encoding="utf-8") as file:
        file.write(f"{name.strip()} {_digest(key)}\n")
    return key


def _digest(key: str) -> str:
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
