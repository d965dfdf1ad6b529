"""Encryption at rest: a passphrase becomes a key by scrypt (RFC 7914), every record is sealed by AES-256-GCM."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from clearseek.config.errors import InputError
from clearseek.serve.errors import KnownMistake

_COST, _BLOCK = 2**16, 8  # 64 MiB and some tenths of a second for whoever guesses a passphrase
_NONCE_BYTES, _SALT_BYTES = 12, 16
_KNOWN = b"clearseek history"


class Vault:
    """Seals records with a key; one without a key leaves them as they are."""

    def __init__(self, key: bytes | None = None) -> None:
        self._cipher = None if key is None else AESGCM(key)

    def seal(self, record: bytes, place: str) -> bytes:
        """What is written for `record`; it can be opened at `place` only, so that none stands in for another."""
        if self._cipher is None:
            return record
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, record, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """The record. InputError where it was sealed with another key, or for another place."""
        if self._cipher is None:
            return sealed
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
        except InvalidTag:
            raise InputError(f"{place} of the history can't be opened: the passphrase is another") from None


def new_vault(passphrase: str) -> tuple[Vault, bytes, bytes]:
    """A vault, its salt, and what a passphrase is recognised by later."""
    if not passphrase:
        raise InputError("an empty passphrase protects nothing; choose some words")
    salt = os.urandom(_SALT_BYTES)
    vault = Vault(_key(passphrase, salt))
    return vault, salt, vault.seal(_KNOWN, "passphrase")


def open_vault(passphrase: str, salt: bytes, known: bytes) -> Vault:
    """The vault of a passphrase. InputError where it is another one."""
    vault = Vault(_key(passphrase, salt))
    try:
        vault.open(known, "passphrase")
    except InputError:
        raise KnownMistake("wrong_passphrase", "that is not the history's passphrase") from None
    return vault


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_COST, r=_BLOCK, p=1).derive(passphrase.encode())
