"""Progress on stderr: bars in a terminal, a plain line now and then elsewhere, nothing on later ranks."""

import os
import sys
import time

import click

from clearseek.cli.options import is_first_rank
from clearseek.config.progress import Progress, SilentProgress

SECONDS_BETWEEN_LINES = 10.0


def open_progress() -> Progress:
    """The progress that fits where stderr goes."""
    if not is_first_rank():
        return SilentProgress()
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return PlainProgress()
    from clearseek.cli.bars import BarProgress  # rich is slow to import

    return BarProgress()


class PlainProgress:
    """One line a stage and one every ten seconds, for logs and pipes."""

    def __init__(self, seconds_between_lines: float = SECONDS_BETWEEN_LINES) -> None:
        self._seconds_between_lines = seconds_between_lines
        self._name = ""
        self._first: tuple[int, float] | None = None
        self._last_line = 0.0

    def stage(self, name: str, kind: str, index: int, total: int) -> None:
        """Say which stage begins."""
        self._name, self._first, self._last_line = name, None, time.monotonic()
        click.echo(f"[{index}/{total}] {stage_title(name, kind)}", err=True)

    def step(self, done: int, total: int, **metrics: float) -> None:
        """Say where the stage stands, unless a line was printed a moment ago; the last step always speaks."""
        now = time.monotonic()
        self._first = self._first or (done, now)
        if done < total and now - self._last_line < self._seconds_between_lines:
            return
        self._last_line = now
        parts = [f"{self._name} {done}/{total}", *self._pace(done, total, now), *metric_words(metrics)]
        click.echo("  " + ", ".join(parts), err=True)

    def note(self, text: str) -> None:
        """Print `text`."""
        click.echo(text, err=True)

    def end(self) -> None:
        """Nothing is held open."""

    def _pace(self, done: int, total: int, now: float) -> list[str]:
        first_done, first_time = self._first or (done, now)
        if done == first_done or now == first_time:
            return []
        rate = (done - first_done) / (now - first_time)
        return [f"{rate:.3g}/s", f"{duration((total - done) / rate)} left"]


def stage_title(name: str, kind: str) -> str:
    """`name`, with the stage's kind behind it where the name does not say it."""
    return name if name == kind else f"{name} ({kind})"


def metric_words(metrics: dict[str, float]) -> list[str]:
    """`loss 2.314`: each metric with four significant digits."""
    return [f"{name} {value:.4g}" for name, value in metrics.items()]


def duration(seconds: float) -> str:
    """Seconds as a person says them: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
