"""The key that seals this user's runs: Ed25519, in the user's own configuration, made when first needed."""

import os
from pathlib import Path

from clearseek.config.errors import RunError

VARIABLE = "CLEARSEEK_LEDGER_KEY"


def key_path() -> Path:
    """Where the key lies: what CLEARSEEK_LEDGER_KEY says, else clearseek/ledger.key in the configuration directory."""
    if told := os.environ.get(VARIABLE):
        return Path(told)
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "clearseek" / "ledger.key"


def private_key() -> bytes:
    """The user's 32 bytes, made at the first call. Raises RunError where they can't be read or kept."""
    path = key_path()
    try:
        if path.is_file():
            return _read(path)
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = Ed25519PrivateKey.generate().private_bytes_raw()
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(made.hex().encode() + b"\n")
        try:
            os.link(partial, path)  # the first of two that make one at the same time keeps it
        except FileExistsError:
            return _read(path)
        finally:
            partial.unlink()
        return made
    except OSError as error:
        raise RunError(
            f"{path}: the key that seals runs can't be kept there ({error.strerror}); name another place in {VARIABLE}"
        ) from None


def public_key() -> bytes:
    """The 32 bytes that what `private_key` signed is checked with. Raises RunError as it does."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private_key()).public_key().public_bytes_raw()


def _read(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise RunError(f"{path} is no key: 64 hexadecimal digits; put it back, or move it away for a new one")
    return key
