"""Progress of bytes on stderr: a bar with its rate in a terminal, a line every ten seconds elsewhere."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

from clearseek.cli.progress import SECONDS_BETWEEN_LINES

Each = Callable[[int, int], None]


class Transfer(Protocol):
    """Where progress is told: `file(name)` gives a function to call with bytes done and bytes in all."""

    def file(self, name: str) -> Each:
        """A function that shows how far a file is."""
        ...


@contextmanager
def open_transfer() -> Iterator[Transfer]:
    """The transfer that fits where stderr goes; the terminal is as before when the block ends."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield PlainTransfer()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield _BarTransfer(bars)


class PlainTransfer:
    """One line a file when it is done, and one every ten seconds, for logs and pipes."""

    def __init__(self, seconds_between_lines: float = SECONDS_BETWEEN_LINES) -> None:
        self._seconds_between_lines = seconds_between_lines
        self._last_line = time.monotonic()

    def file(self, name: str) -> Each:
        """A function that prints how far a file is."""

        def each(done: int, total: int) -> None:
            now = time.monotonic()
            if done < total and now - self._last_line < self._seconds_between_lines:
                return
            self._last_line = now
            click.echo(f"  {name} {byte_words(done)} of {byte_words(total)}", err=True)

        return each


class _BarTransfer:
    def __init__(self, bars: Any) -> None:
        self._bars = bars

    def file(self, name: str) -> Each:
        """A function that moves the file's bar, which appears with its first call."""
        tasks: list[Any] = []

        def each(done: int, total: int) -> None:
            if not tasks:
                tasks.append(self._bars.add_task(name, total=total, completed=done))
            self._bars.update(tasks[0], completed=done, total=total)

        return each


def byte_words(count: float) -> str:
    """Bytes as a person says them: `512 B`, `1.4 MiB`, `15.2 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
