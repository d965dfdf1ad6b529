"""Two loads that take turns on one machine: what its speed does meanwhile is the same for both.

Both are there all the time; whose turn it isn't is stopped by a signal.
"""

import os
import signal
import statistics
import time
from asyncio import sleep
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WARM_SECONDS = 0.05  # of each turn, before it counts


@dataclass(frozen=True)
class Side:
    """One of them: the process that computes it, with those that it started, and how many tokens it has made by now."""

    pid: int
    tokens: Callable[[], int]

    def stop(self) -> None:
        """Until it is its turn."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It is its turn."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for one in family(self.pid):
            os.kill(one, number)

    async def turn(self, seconds: float) -> float:
        """Its tokens a second in a turn."""
        self.go_on()
        await sleep(_WARM_SECONDS)
        begun, before = time.perf_counter(), self.tokens()
        await sleep(seconds)
        rate = (self.tokens() - before) / (time.perf_counter() - begun)
        self.stop()
        return rate


async def in_turns(first: Side, second: Side, turns: int, seconds: float = 1.0) -> dict[str, Any]:
    """The second's speed as a share of the first's: the median of turns, with its standard error; both go on then."""
    first.stop()
    second.stop()
    pairs = []
    try:
        for number in range(turns):
            one, other = (first, second) if number % 2 else (second, first)
            rates = {one.pid: await one.turn(seconds), other.pid: await other.turn(seconds)}
            pairs.append((rates[first.pid], rates[second.pid]))
    finally:
        second.go_on()
        first.go_on()
    shares = [b / a for a, b in pairs]
    return {
        "turns": turns,
        "tokens_per_second": [statistics.median(rates) for rates in zip(*pairs, strict=True)],
        "share": statistics.median(shares),
        "standard_error": statistics.stdev(shares) / turns**0.5,
        "shares": shares,
    }


def family(pid: int) -> list[int]:
    """A process and those that it has started."""
    lists = [file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    return [pid, *(one for children in lists for child in children for one in family(int(child)))]
