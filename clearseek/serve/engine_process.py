"""The engine in a process of its own, so that what the server does for its clients takes nothing from it.

    python -m clearseek.serve.engine_process SOCKET

It is told by its socket which model to open, says what there is to know of it, and answers until the other end is
closed, in whatever way that comes. Signals to end are the server's to heed.
"""

import os
import signal
import socket
import sys
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clearseek.config.errors import InputError, InputWarning, RunError
from clearseek.serve.engine_words import Counts, Facts, Unpacker, Word, packed
from clearseek.serve.errors import LacksMemory
from clearseek.serve.logs import write_logs
from clearseek.serve.outbound import refuse_outbound

if TYPE_CHECKING:
    from clearseek.engine.session import Session
    from clearseek.serve.engine_loop import EngineLoop

PIECE_BYTES = 1 << 20  # read at once


@dataclass(frozen=True)
class Opening:
    """Which model to open, as `open_session` takes it; `log` is how lines look."""

    source: str
    device: str
    form: str | None
    speculation: str | None
    num_slots: int
    log: str
    cache_gib: float | None = None
    exact: bool | None = None


def main() -> None:
    """Heed nobody but the other end of the socket."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _Process(socket.socket(fileno=int(sys.argv[1]))).run()


class _Process:
    def __init__(self, server: socket.socket) -> None:
        self._server, self._unpacker, self._writing = server, Unpacker(), threading.Lock()
        self._loop: EngineLoop | None = None

    def run(self) -> None:
        """Open the model, then answer until nobody is there."""
        opening = self._opening()
        write_logs(opening.log)
        refuse_outbound()
        threading.Thread(target=self._listen, name="clearseek-listener", daemon=True).start()
        try:
            session, facts = _opened(opening)
        except (InputError, RunError) as error:
            self._say(error)
            return
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            self._say(LacksMemory(f"{opening.source}: there is not enough memory for it"))
            return
        from clearseek.serve.engine_loop import EngineLoop

        self._loop = EngineLoop(session.engine, self._tell)
        self._say(facts)
        self._loop.run()

    def _opening(self) -> Opening:
        while not (found := self._unpacker.feed(self._piece() or sys.exit())):
            pass
        opening: Opening = found[0]
        return opening

    def _piece(self) -> bytes:
        """What comes next, nothing where the other end is closed."""
        try:
            return self._server.recv(PIECE_BYTES)
        except ConnectionError:
            return b""

    def _listen(self) -> None:
        while piece := self._piece():
            for order in self._unpacker.feed(piece):
                assert self._loop is not None, "orders come after the facts"
                self._loop.order(order)
        if self._loop is None:
            os._exit(0)  # a model that nobody waits for; reading it could take minutes
        self._loop.close()

    def _tell(self, words: list[Word], counts: Counts) -> None:
        self._say((words, counts))

    def _say(self, what: Any) -> None:
        with self._writing, suppress(ConnectionError):  # the listener notices, too
            self._server.sendall(packed(what))


def _opened(opening: Opening) -> "tuple[Session, Facts]":
    from clearseek.engine.session import open_session
    from clearseek.model.device import choose_device

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        session = open_session(
            opening.source,
            opening.device,
            opening.form,
            opening.speculation,
            opening.num_slots,
            opening.cache_gib,
            opening.exact,
        )
    warned = tuple(str(one.message) for one in caught if issubclass(one.category, InputWarning))
    config, engine = session.model.config, session.engine
    context = min(config.max_position_embeddings, engine.most_tokens)
    engine.reserve(opening.num_slots, context)
    device, most = choose_device(opening.device).device.type, engine.cache_limit.num_bytes
    facts = Facts(
        context, opening.num_slots, config.hidden_size, dict(session.defaults), device, warned, most
    )
    return session, facts


def _lacks_memory(error: Exception) -> bool:
    """Whether it is torch's way of saying so."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


if __name__ == "__main__":
    main()
