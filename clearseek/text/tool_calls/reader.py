"""A text that is read while it is still being written, by generators that wait where they need more of it.

Whatever a generator decides depends on the text alone, never on where it was cut into chunks: it asks for the next
character, for one of some literals or for a marker, and each of these waits until the answer can't change any more.
"""

import re
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import TypeVar

from clearseek.text.tool_calls.events import Event, Malformed

Result = TypeVar("Result")
# A generator yields what is certain, or None where it waits for more text.
Steps = Generator[Event | None, None, Result]
MakeEvent = Callable[[str], Event]

SPACES = " \t\r\n"


class NotACall(Exception):
    """The text is not what it began like."""


class Reader:
    """The text from `place` on. What lies before `kept` is forgotten."""

    def __init__(self) -> None:
        self.text, self.place, self.is_over = "", 0, False
        self.kept: int | None = None  # where text begins that may have to be given out again

    def feed(self, chunk: str) -> None:
        """More text."""
        start = self.place if self.kept is None else self.kept
        self.text = self.text[start:] + chunk
        self.place -= start
        self.kept = None if self.kept is None else 0

    def keep(self, length: int = 0) -> None:
        """Remember the text from here on, and the last `length` characters before."""
        self.kept = self.place - length

    def take_kept(self) -> str:
        """The text since `keep`, which is over."""
        kept = self.text[self.kept : self.place] if self.kept is not None else ""
        self.kept = None
        return kept

    def peek(self) -> Steps[str]:
        """The next character, which stays; empty at the end."""
        while self.place >= len(self.text):
            if self.is_over:
                return ""
            yield None
        return self.text[self.place]

    def spaces(self) -> Steps[str]:
        """Skip whitespace, and give back the character after it, as `peek`."""
        while (character := (yield from self.peek())) and character in SPACES:
            self.place += 1
        return character

    def accept(self, literals: Sequence[str]) -> Steps[str]:
        """Take the longest of these literals that comes here; empty where none does."""
        while True:
            left = self.text[self.place : self.place + max(map(len, literals))]
            if self.is_over or not any(len(left) < len(one) and one.startswith(left) for one in literals):
                break
            yield None
        found = max((one for one in literals if left.startswith(one)), key=len, default="")
        self.place += len(found)
        return found

    def require(self, *literals: str) -> Steps[str]:
        """Take one of these literals; `NotACall` where none comes here."""
        found = yield from self.accept(literals)
        if not found:
            raise NotACall
        return found

    def until(self, markers: tuple[str, ...], make: MakeEvent, drops_spaces: bool = False) -> Steps[str]:
        """Give out the text before the first of `markers`, and take that; empty where the text ends before.

        `drops_spaces`: whitespace right before a marker is left out.
        """
        search, half = _search(markers), _half(markers, drops_spaces)
        while True:
            found = search.search(self.text, self.place)
            if found:
                text = self.text[self.place : found.start()]
                self.place = found.end()
                if text := text.rstrip(SPACES) if drops_spaces else text:
                    yield make(text)
                return found.group()
            certain = len(self.text) if self.is_over else half(self.text, self.place)
            text, self.place = self.text[self.place : certain], certain
            if text:
                yield make(text)
            if self.is_over:
                return ""
            yield None

    def collect(self, markers: tuple[str, ...], most: int | None = None) -> Steps[tuple[str, str]]:
        """The text before the first of `markers`, and that; `NotACall` where there is none, or more than `most` before."""
        search, longest, looked = _search(markers), max(map(len, markers)), 0
        while not (found := search.search(self.text, self.place + looked)):
            length = len(self.text) - self.place
            if self.is_over or (most is not None and length > most + longest):
                raise NotACall
            looked = max(0, length - longest + 1)
            yield None
        if most is not None and found.start() - self.place > most:
            raise NotACall
        text, self.place = self.text[self.place : found.start()], found.end()
        return text, found.group()

    def failed(self) -> Steps[None]:
        """Give out what was kept, as malformed."""
        if text := self.take_kept():
            yield Malformed(text)


@lru_cache(maxsize=256)
def _search(markers: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(markers, key=len, reverse=True))))


@lru_cache(maxsize=256)
def _half(markers: tuple[str, ...], drops_spaces: bool) -> Callable[[str, int], int]:
    """A function that says how far a text without a marker is certain, from a place on."""
    halves = {marker[:length] for marker in markers for length in range(1, len(marker))}
    longest = max(map(len, markers)) - 1
    ends = frozenset(half[-1] for half in halves)

    def certain(text: str, place: int) -> int:
        end = len(text)
        if end > place and text[-1] in ends:
            for start in range(max(place, end - longest), end):
                if text[start:] in halves:
                    end = start
                    break
        if drops_spaces:
            while end > place and text[end - 1] in SPACES:
                end -= 1
        return end

    return certain
