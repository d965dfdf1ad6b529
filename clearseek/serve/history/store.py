"""One SQLite file of conversations, or one in memory. What is deleted is overwritten, not only unlinked.

That holds for the journal, too, in which SQLite keeps pages as they were until a change is whole: it stays one file,
and is overwritten with zeros after each change.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.serve.errors import ApiError
from clearseek.serve.history.records import Conversation, Message
from clearseek.serve.history.vault import Vault, new_vault, open_vault

_VERSION = 1
_ZEROS = 2**20  # bytes that are overwritten at once
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE conversations (
    id TEXT PRIMARY KEY, created REAL NOT NULL, updated REAL NOT NULL, body BLOB NOT NULL
);
CREATE TABLE messages (
    id TEXT PRIMARY KEY, conversation TEXT NOT NULL REFERENCES conversations ON DELETE CASCADE,
    parent TEXT, created REAL NOT NULL, body BLOB NOT NULL
);
CREATE INDEX messages_of ON messages (conversation, created);
"""


class Locked(ApiError):
    """The history is sealed and nobody has given its passphrase."""

    def __init__(self) -> None:
        super().__init__(423, "the history is locked; give its passphrase", code="history_locked")


class Store:
    """Conversations by id. Any thread may ask; one at a time is answered."""

    def __init__(self, path: Path | None = None) -> None:
        """Open or make `path`; None: in memory. InputError for a file that is something else, or newer."""
        self._lock = threading.RLock()
        self._vault: Vault | None = Vault()
        self._journal = None if path is None else Path(f"{path}-journal")
        with _left_open(self._journal):
            self._database = _open(path)
            self._prepare(path)
            self._clear_journal()
        if self._about("salt") is not None:
            self._vault = None

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._database.close()

    @property
    def is_sealed(self) -> bool:
        """Whether records are encrypted."""
        return self._about("salt") is not None

    @property
    def is_locked(self) -> bool:
        """Whether they are, and can't be read yet."""
        return self._vault is None

    def unlock(self, passphrase: str) -> None:
        """Read on with this passphrase. InputError where it is another one."""
        salt, known = self._about("salt"), self._about("known")
        if salt is None or known is None:
            raise InputError("the history has no passphrase")
        self._vault = open_vault(passphrase, salt, known)

    def lock(self) -> None:
        """Forget the key, if there is one."""
        if self.is_sealed:
            self._vault = None

    def set_passphrase(self, passphrase: str | None) -> None:
        """Seal every record anew; None: keep them readable. What they were sealed with before is overwritten."""
        old = self._opened()
        new, salt, known = (Vault(), None, None) if passphrase is None else new_vault(passphrase)
        with self._writing() as database:
            for table in ("conversations", "messages"):
                rows = database.execute(f"SELECT id, body FROM {table}").fetchall()
                resealed = [(new.seal(old.open(body, place), place), place) for place, body in rows]
                database.executemany(f"UPDATE {table} SET body = ? WHERE id = ?", resealed)
            database.execute("DELETE FROM about WHERE name IN ('salt', 'known')")
            if salt is not None:
                database.executemany("INSERT INTO about VALUES (?, ?)", [("salt", salt), ("known", known)])
        self._vault = new
        self._sweep()

    def conversations(self) -> list[Conversation]:
        """All, the latest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT id, created, updated, body FROM conversations ORDER BY updated DESC"
            ).fetchall()
        return [_conversation(row, self._opened()) for row in rows]

    def conversation(self, id: str) -> Conversation | None:
        """One of them."""
        with self._lock:
            row = self._database.execute(
                "SELECT id, created, updated, body FROM conversations WHERE id = ?", (id,)
            ).fetchone()
        return None if row is None else _conversation(row, self._opened())

    def holds(self, id: str) -> bool:
        """Whether a conversation is here, locked or not."""
        with self._lock:
            found = self._database.execute("SELECT 1 FROM conversations WHERE id = ?", (id,)).fetchone()
        return found is not None

    def messages(self, conversation: str) -> list[Message]:
        """Of one conversation, the oldest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT id, conversation, parent, created, body FROM messages WHERE conversation = ? "
                "ORDER BY created, rowid",
                (conversation,),
            ).fetchall()
        vault = self._opened()
        return [_message(row, vault) for row in rows]

    def put_conversation(self, one: Conversation) -> None:
        """Write a conversation, new or changed."""
        body = self._seal(one.body, one.id)
        with self._writing() as database:
            database.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "updated = excluded.updated, body = excluded.body",
                (one.id, one.created, one.updated, body),
            )

    def put_messages(self, messages: Sequence[Message]) -> None:
        """Write messages, new or changed, all or none."""
        rows = [(m.id, m.conversation, m.parent, m.created, self._seal(m.body, m.id)) for m in messages]
        with self._writing() as database:
            database.executemany(
                "INSERT INTO messages VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
                rows,
            )

    def delete_conversation(self, id: str) -> None:
        """Delete it and its messages from the file."""
        with self._writing() as database:
            database.execute("DELETE FROM conversations WHERE id = ?", (id,))
        self._sweep()

    def keeps(self) -> bool:
        """Whether new conversations are to be written here."""
        return self._about("keeps") != b"no"

    def set_keeps(self, keeps: bool) -> None:
        """Remember that choice."""
        with self._writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO about VALUES ('keeps', ?)", (b"yes" if keeps else b"no",)
            )

    def _opened(self) -> Vault:
        if self._vault is None:
            raise Locked
        return self._vault

    def _seal(self, body: dict[str, Any], place: str) -> bytes:
        return self._opened().seal(json.dumps(body, ensure_ascii=False).encode(), place)

    def _about(self, name: str) -> bytes | None:
        with self._lock:
            row = self._database.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            with self._database:
                yield self._database
            self._clear_journal()

    def _sweep(self) -> None:
        """Pages that were freed go; `secure_delete` has overwritten them with zeros."""
        with self._lock:
            self._database.execute("VACUUM")
            self._clear_journal()

    def _clear_journal(self) -> None:
        if self._journal is None or not self._journal.exists() or not self._journal.stat().st_size:
            return
        self._database.execute("BEGIN IMMEDIATE")  # no other process is writing by it now
        try:
            with self._journal.open("r+b") as file:
                _overwrite(file.fileno())
        finally:
            self._database.execute("ROLLBACK")

    def _prepare(self, path: Path | None) -> None:
        try:
            self._database.execute("PRAGMA journal_mode = PERSIST")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            for setting in ("secure_delete = ON", "foreign_keys = ON", "temp_store = MEMORY"):
                self._database.execute(f"PRAGMA {setting}")
            if version == 0:
                self._database.executescript(f"{_TABLES} PRAGMA user_version = {_VERSION};")
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path}: is no history of conversations ({error})") from None
        if version > _VERSION:
            raise InputError(
                f"{path}: was written by a newer clearseek (history version {version}); update this one"
            )


def _open(path: Path | None) -> sqlite3.Connection:
    if path is None:
        return sqlite3.connect(":memory:", check_same_thread=False)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise InputError(f"{path}: can't keep conversations here ({error.strerror})") from None
    return sqlite3.connect(path, check_same_thread=False, timeout=10)


@contextmanager
def _left_open(journal: Path | None) -> Iterator[None]:
    """While a database is opened: SQLite rolls back by the journal of a crash, and unlinks that as it is."""
    if journal is None or not journal.exists():
        yield
        return
    with journal.open("r+b") as file:
        yield
        if not os.fstat(file.fileno()).st_nlink:
            _overwrite(file.fileno())


def _overwrite(descriptor: int) -> None:
    left = os.fstat(descriptor).st_size
    os.lseek(descriptor, 0, os.SEEK_SET)
    while left > 0:
        left -= os.write(descriptor, bytes(min(left, _ZEROS)))
    os.fsync(descriptor)
    os.ftruncate(descriptor, 0)


def _conversation(row: tuple[str, float, float, bytes], vault: Vault) -> Conversation:
    place, created, updated, body = row
    return Conversation(id=place, created=created, updated=updated, **json.loads(vault.open(body, place)))


def _message(row: tuple[str, str, str | None, float, bytes], vault: Vault) -> Message:
    place, conversation, parent, created, body = row
    return Message(conversation, parent, id=place, created=created, **json.loads(vault.open(body, place)))
