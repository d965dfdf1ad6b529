"""Verifiers in a process that can be killed: a hang, crash or memory blow-up costs one item only."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Self

from clearseek.config.errors import RunError
from clearseek.tasks.verify import Verdict, check_verifier

Item = tuple[str, str, str]  # verifier, candidate, answer
_MOST_IDLE_DEATHS = 2
_STOP_SECONDS = 10.0
_CHUNK_BYTES = 1 << 16


class Limits(NamedTuple):
    """Wall seconds for one item, wall seconds to import what a verifier needs, bytes of address space."""

    timeout_seconds: float = 5.0
    load_seconds: float = 60.0
    memory_bytes: int = 2 << 30


class VerifierPool:
    """Runs verifiers one after the other in a process kept warm; not for use from two threads at once.

    `last_error` says why the latest verdict `error` was given, `restarts` how often the process was replaced.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.last_error = ""
        self.restarts = 0
        self._process: _Process | None = None
        self._broken: dict[str, str] = {}  # verifiers that could not be loaded, and why

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; the next call starts another."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def verify_many(self, items: Sequence[Item]) -> list[Verdict]:
        """A verdict for each item; whatever hangs, crashes or runs out of memory gets `error`.

        Raises InputError for an unknown verifier, before anything runs, and RunError where no process starts.
        """
        for verifier in {item[0] for item in items}:
            check_verifier(verifier)
        verdicts: dict[int, Verdict] = {}
        idle_deaths = 0
        while left := self._left(items, verdicts):
            try:
                self._run(items, left, verdicts)
            except _DiedError as death:
                self.close()
                self.restarts += 1
                idle_deaths = self._blame(death, items, verdicts, idle_deaths)
        return [verdicts[i] for i in range(len(items))]

    def _left(self, items: Sequence[Item], verdicts: dict[int, Verdict]) -> list[int]:
        """The items to run; those whose verifier cannot be loaded are answered here."""
        left = []
        for i, (verifier, _, _) in enumerate(items):
            if i not in verdicts and verifier in self._broken:
                verdicts[i], self.last_error = Verdict.error, self._broken[verifier]
            elif i not in verdicts:
                left.append(i)
        return left

    def _run(self, items: Sequence[Item], left: list[int], verdicts: dict[int, Verdict]) -> None:
        if self._process is None:
            self._process = _Process(self.limits)
        self._process.begin([items[i] for i in left])
        for i in left:
            verdict, message = self._process.answer(i)
            verdicts[i] = Verdict(verdict)
            self.last_error = message or self.last_error

    def _blame(
        self, death: "_DiedError", items: Sequence[Item], verdicts: dict[int, Verdict], idle_deaths: int
    ) -> int:
        """Give the item at work its `error`; a process that died idle is replaced twice without blame."""
        if death.item is None:
            if idle_deaths == _MOST_IDLE_DEATHS:
                raise RunError(
                    f"the verifier process {death.reason}, {idle_deaths + 1} times before any item"
                )
            return idle_deaths + 1
        verifier = items[death.item][0]
        self.last_error = f"verifier {verifier!r} {death.reason}"
        if death.loading:
            self._broken[verifier] = self.last_error
        verdicts[death.item] = Verdict.error
        return 0


class _DiedError(Exception):
    """The process is gone or must go: why, at which item (None: idle), and whether it was importing."""

    def __init__(self, reason: str, item: int | None = None, loading: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.item, self.loading = reason, item, loading


class _Process:
    """One verifier process and the pipes to it; every wait has a bound."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        arguments = [limits.memory_bytes, limits.timeout_seconds, limits.load_seconds]
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "clearseek.tasks.verifier_process", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._to, self._from = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._to, False)
        self._unread = b""
        try:
            self._expect("ready")
        except _DiedError:
            self.kill()
            raise

    def begin(self, items: Sequence[Item]) -> None:
        """Hand over a batch. Raises _DiedError, blaming no item."""
        unsent = memoryview(json.dumps(items).encode() + b"\n")
        deadline = monotonic() + self._limits.load_seconds
        while unsent:
            self._wait(self._to, select.POLLOUT, deadline, "took no batch")
            try:
                unsent = unsent[os.write(self._to, unsent) :]
            except BrokenPipeError as error:
                raise _DiedError(self._ending()) from error
        self._expect("got")

    def answer(self, item: int) -> tuple[str, str]:
        """The verdict and message on the next item. Raises _DiedError blaming `item`."""
        loading = False
        try:
            line = self._line(self._limits.timeout_seconds)
            if line == "loading":
                loading = True
                self._expect("loaded")
                loading = False
                line = self._line(self._limits.timeout_seconds)
        except _DiedError as death:
            raise _DiedError(death.reason, item, loading) from death
        verdict, _, message = line.partition(" ")
        return verdict, json.loads(message) if message else ""

    def kill(self) -> None:
        """End the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):  # it ended by itself and left nothing behind
            os.killpg(self._child.pid, signal.SIGKILL)
        try:
            self._child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise RunError(f"verifier process {self._child.pid} did not end when killed") from error
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            pipe.close()

    def _expect(self, word: str) -> None:
        line = self._line(self._limits.load_seconds)
        if line != word:
            raise _DiedError(f"said {line[:80]!r} where {word!r} was due")

    def _line(self, seconds: float) -> str:
        deadline = monotonic() + seconds
        while b"\n" not in self._unread:
            self._wait(self._from, select.POLLIN, deadline, f"gave no answer within {seconds:g} s")
            chunk = os.read(self._from, _CHUNK_BYTES)
            if not chunk:
                raise _DiedError(self._ending())
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def _wait(self, pipe: int, event: int, deadline: float, reason: str) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        left_seconds = max(0.0, deadline - monotonic())
        if not poll.poll(left_seconds * 1000):
            raise _DiedError(reason)

    def _ending(self) -> str:
        """How the process ended; its pipes close a moment before it does."""
        try:
            code = self._child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
