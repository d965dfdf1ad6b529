"""How a server and its engine are connected, where the engine is a process of its own. It needs no torch here."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Protocol

from clearseek.config.errors import RunError
from clearseek.serve.engine_process import PIECE_BYTES, Opening
from clearseek.serve.engine_words import Counts, Facts, Order, Unpacker, Word, packed
from clearseek.serve.errors import LacksMemory

_LOG = logging.getLogger(__name__)
_OPEN_SECONDS = 3600.0  # to read a model
_REAP_SECONDS = 5.0  # for a process to end that has closed its socket
_KILL_SECONDS = 60.0  # for a large one to give its memory back once it was killed

Hear = Callable[[list[Word], Counts], None]


class Line(Protocol):
    """A connection to an engine."""

    num_slots: int
    hidden_size: int
    cache_bytes: int  # that the engine's cache takes at most

    @property
    def is_lost(self) -> bool:
        """Whether the engine has ended by itself."""
        ...

    async def connect(self, hear: Hear, lost: Callable[[], None]) -> None:
        """From now on `hear` what it says, in this event loop; once it says no more, `lost` is called."""
        ...

    def order(self, order: Order) -> None:
        """Tell it something; from the event loop, once that is connected."""
        ...

    def close(self, seconds: float) -> None:
        """Let it cancel what is on its way and end; waits at most so long."""
        ...


class ProcessLine:
    """To an engine in a process of its own, which begins to open a model at once; `facts` waits for that."""

    num_slots, hidden_size, cache_bytes = 0, 0, 0  # until `facts`

    def __init__(self, opening: Opening) -> None:
        self._source, self._closing, self._unpacker = opening.source, False, Unpacker()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self.process = _start(theirs.fileno())
        self._socket.settimeout(_OPEN_SECONDS)
        self._transport: asyncio.Transport | None = None
        self._socket.sendall(packed(opening))

    def facts(self) -> Facts:
        """What there is to know of the model. InputError and RunError as `open_session` raises them."""
        try:
            while not (found := self._unpacker.feed(piece := self._socket.recv(PIECE_BYTES))):
                if not piece:
                    raise ConnectionResetError
        except ConnectionError:
            how = f"{self._source}: the engine's process {self._ending()} while it opened the model"
            # nobody else kills it than the system, where memory is short
            raise (LacksMemory if self.process.returncode == -signal.SIGKILL else RunError)(how) from None
        except TimeoutError:
            raise RunError(f"{self._source} was not open after {_OPEN_SECONDS:g} s") from None
        if isinstance(found[0], Exception):
            raise found[0]
        facts: Facts = found[0]
        self.num_slots, self.hidden_size = facts.num_slots, facts.hidden_size
        self.cache_bytes = facts.cache_bytes
        return facts

    @property
    def is_lost(self) -> bool:
        """As `Line`."""
        if self._closing:
            return False
        # to ask the system for each request would take longer
        return self._has_ended() if self._transport is None else self._transport.is_closing()

    async def connect(self, hear: Hear, lost: Callable[[], None]) -> None:
        """As `Line`."""

        async def end() -> None:
            if not self._closing:
                _LOG.error("the engine's process %s", await asyncio.to_thread(self._ending))
            lost()

        ours = self._socket.dup()  # the loop closes its own
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_accepted_socket(lambda: _Ear(self._unpacker, hear, end), ours)

    def order(self, order: Order) -> None:
        """As `Line`."""
        assert self._transport is not None, "connect comes first"
        self._transport.write(packed(order))

    def close(self, seconds: float) -> None:
        """As `Line`."""
        self._closing = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # else it could wait for what it says to be read
        except OSError:
            _LOG.debug("the engine's process has ended already")
        self._reap(seconds)
        self._socket.close()

    def _ending(self) -> str:
        """How the process ended, which has closed its socket."""
        code = self._reap(_REAP_SECONDS)
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def _reap(self, seconds: float) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(_KILL_SECONDS)

    def _has_ended(self) -> bool:
        try:
            self.process.wait(0)
        except subprocess.TimeoutExpired:
            return False
        return True


class _Ear(asyncio.Protocol):
    def __init__(
        self, unpacker: Unpacker, hear: Hear, end: Callable[[], Coroutine[None, None, None]]
    ) -> None:
        self._unpacker, self._hear, self._end = unpacker, hear, end
        self._ending: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        """Some of what it says."""
        for words, counts in self._unpacker.feed(data):
            self._hear(words, counts)

    def connection_lost(self, error: Exception | None) -> None:
        """It says no more."""
        self._ending = asyncio.create_task(self._end())


def _start(number: int) -> "subprocess.Popen[bytes]":
    """This code, whatever the working directory holds; in a session of its own, so that Ctrl-C doesn't reach it."""
    code = str(Path(__file__).resolve().parents[2])
    paths = filter(None, (code, os.environ.get("PYTHONPATH")))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "clearseek.serve.engine_process", str(number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[number],
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
