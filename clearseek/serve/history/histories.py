"""A history for everyone who has a key, and one for who needs none."""

import threading
from hashlib import sha256
from pathlib import Path

from clearseek.serve.history.history import History


class Histories:
    """Histories by client, opened when any thread first asks for one.

    `directory` is for those that are kept; None: none can be.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._opened: dict[str, History] = {}
        self._lock = threading.Lock()  # two histories of one client would each lose what the other has

    def of(self, client: str) -> History:
        """The history of one client. InputError where its file is something else."""
        with self._lock:
            if client not in self._opened:
                name = (
                    "history.db" if not client else f"history-{sha256(client.encode()).hexdigest()[:16]}.db"
                )
                self._opened[client] = History(None if self._directory is None else self._directory / name)
            return self._opened[client]
