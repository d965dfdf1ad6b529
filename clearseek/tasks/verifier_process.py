"""The process in which verifiers run: reads a batch as one line of JSON, answers a line for each item.

Covered: time (the parent kills; a timer that the kernel serves ends us if the parent is gone), memory
(address space), whatever verifiers print or read. Not covered: files and network, which a user's own verifier
may use.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from clearseek.tasks.verify import VERIFIERS, Verdict, load_verifier, verify

_GRACE_SECONDS = 2.0
_LONGEST_MESSAGE = 500
Say = Callable[[str], None]


def main(arguments: Sequence[str]) -> None:
    """`memory_bytes timeout_seconds load_seconds`: serve batches until the input ends."""
    memory_bytes, timeout_seconds, load_seconds = int(arguments[0]), float(arguments[1]), float(arguments[2])
    _limit_memory(memory_bytes)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    loaded = dict.fromkeys(set(VERIFIERS) - {"math"}, "")  # why a verifier could not be loaded, "" if it was
    with _private_channel() as (batches, say):
        say("ready")
        for batch in batches:
            say("got")
            for verifier, candidate, answer in json.loads(batch):
                if verifier not in loaded:
                    say("loading")
                    _arm(load_seconds)
                    loaded[verifier] = _load(verifier)
                    say("loaded")
                _arm(timeout_seconds)
                verdict, message = _judge(verifier, candidate, answer, loaded[verifier])
                say(f"{verdict} {json.dumps(message)}" if message else verdict)
            _arm(0)


def _load(verifier: str) -> str:
    """Why the verifier cannot be loaded, or ""."""
    try:
        load_verifier(verifier)
    except Exception as error:  # noqa: BLE001 — whatever a user's file raises is the message
        return _told(error)
    return ""


def _judge(verifier: str, candidate: str, answer: str, broken: str) -> tuple[Verdict, str]:
    """The verdict and, with `error`, the reason: a verifier's failure is data here."""
    if broken:
        return Verdict.error, broken
    try:
        verdict = verify(verifier, candidate, answer)
    except Exception as error:  # noqa: BLE001 — whatever a user's function raises is the message
        return Verdict.error, _told(error)
    message = f"verifier {verifier!r} cannot read the answer {answer[:60]!r}"
    return verdict, message if verdict is Verdict.error else ""


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_LONGEST_MESSAGE]


def _arm(seconds: float) -> None:
    """Have the kernel end this process soon after the time in which the parent should have."""
    signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE_SECONDS if seconds else 0)


def _limit_memory(memory_bytes: int) -> None:
    import resource

    with contextlib.suppress(ValueError, OSError):  # not every system lets the address space be limited
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.contextmanager
def _private_channel() -> Iterator[tuple[TextIO, Say]]:
    """The pipes to the parent, moved away from where verifiers read and print."""
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)

    def say(line: str) -> None:
        os.write(replies, line.encode() + b"\n")

    with open(requests, encoding="utf-8") as batches:
        yield batches, say


if __name__ == "__main__":
    main(sys.argv[1:])
