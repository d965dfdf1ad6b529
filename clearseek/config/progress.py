"""What long work says about itself while it runs; the command line draws it, a library may ignore it."""

from typing import Protocol


class Progress(Protocol):
    """Told where the work stands. Every call returns at once and none may change what is computed."""

    def stage(self, name: str, kind: str, index: int, total: int) -> None:
        """Stage `name` begins: number `index` (from 1) of `total`."""

    def step(self, done: int, total: int, **metrics: float) -> None:
        """`done` of `total` steps of the stage are finished; `metrics` are the numbers worth showing."""

    def note(self, text: str) -> None:
        """One line a person should read, such as the device chosen and why."""

    def end(self) -> None:
        """The work is over, whether it succeeded or not."""


class SilentProgress:
    """Says nothing: for library callers, tests and every rank but the first."""

    def stage(self, name: str, kind: str, index: int, total: int) -> None:
        """Say nothing."""

    def step(self, done: int, total: int, **metrics: float) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def end(self) -> None:
        """Say nothing."""
