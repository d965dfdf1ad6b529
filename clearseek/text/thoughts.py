"""A stream of text parted into thought and answer, however the stream is cut into chunks."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["thought", "answer"]


@dataclass(frozen=True)
class Tags:
    """An opening and a closing tag."""

    start: str
    end: str


THINK_TAGS = Tags("<think>", "</think>")


class ThoughtParser:
    """Parts a completion at its thought tags: a first opening one, if any, and the first closing one after it.

    Tags are left out of what comes back. A second closing one is text of the answer. Any chunking of a text
    gives the same thought and the same answer.
    """

    def __init__(self, inside_thought: bool, tags: Tags = THINK_TAGS) -> None:
        """`inside_thought`: the prompt has already opened the thought, so the text begins in it."""
        self.inside_thought = inside_thought
        self._tags = tags
        self._at_start = True
        self._held = ""  # the end of the text so far, where it may be the beginning of a tag

    def feed(self, chunk: str) -> list[tuple[Kind, str]]:
        """Take more text and give back what is now certain, in order; a possible half tag is held back."""
        self._held += chunk
        if self._at_start and not self._leave_start():
            return []
        return self._advance()

    def close(self) -> list[tuple[Kind, str]]:
        """The text has ended: give back what was held. `inside_thought`: whether the thought stayed open."""
        self._at_start = False
        held, self._held = self._held, ""
        return self._event(held)

    def _leave_start(self) -> bool:
        """Decide whether the text opens its thought itself; False while that can't be known yet."""
        text = self._held.lstrip()
        start = self._tags.start
        if len(text) < len(start) and start.startswith(text):
            return False
        self._at_start = False
        if text.startswith(start):
            self.inside_thought = True
            self._held = text.removeprefix(start)
        return True

    def _advance(self) -> list[tuple[Kind, str]]:
        if not self.inside_thought:
            answer, self._held = self._held, ""
            return self._event(answer)
        before, tag, after = self._held.partition(self._tags.end)
        if not tag:
            certain = len(before) - _half_tag_length(before, self._tags.end)
            self._held = before[certain:]
            return self._event(before[:certain])
        events = self._event(before)
        self.inside_thought = False
        self._held = ""
        return events + self._event(after)

    def _event(self, text: str) -> list[tuple[Kind, str]]:
        return [("thought" if self.inside_thought else "answer", text)] if text else []


def _half_tag_length(text: str, tag: str) -> int:
    """Length of the longest end of `text` that begins `tag`."""
    longest = min(len(text), len(tag) - 1)
    return next((length for length in range(longest, 0, -1) if tag.startswith(text[-length:])), 0)
