"""A stream of text parted into thought and answer, however the stream is cut into chunks."""

from typing import Literal

Kind = Literal["thought", "answer"]

_START, _END = "<think>", "</think>"


class ThoughtParser:
    """Parts a completion at its thought tags: a first `<think>`, if any, and the first `</think>` after it.

    Tags are left out of what comes back. A second `</think>` is text of the answer. Any chunking of a text
    gives the same thought and the same answer.
    """

    def __init__(self, inside_thought: bool) -> None:
        """`inside_thought`: the prompt has already opened the thought, so the text begins in it."""
        self.inside_thought = inside_thought
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
        if len(text) < len(_START) and _START.startswith(text):
            return False
        self._at_start = False
        if text.startswith(_START):
            self.inside_thought = True
            self._held = text.removeprefix(_START)
        return True

    def _advance(self) -> list[tuple[Kind, str]]:
        if not self.inside_thought:
            answer, self._held = self._held, ""
            return self._event(answer)
        before, tag, after = self._held.partition(_END)
        if not tag:
            certain = len(before) - _half_tag_length(before)
            self._held = before[certain:]
            return self._event(before[:certain])
        events = self._event(before)
        self.inside_thought = False
        self._held = ""
        return events + self._event(after)

    def _event(self, text: str) -> list[tuple[Kind, str]]:
        return [("thought" if self.inside_thought else "answer", text)] if text else []


def _half_tag_length(text: str) -> int:
    """Length of the longest end of `text` that begins the closing tag."""
    longest = min(len(text), len(_END) - 1)
    return next((length for length in range(longest, 0, -1) if _END.startswith(text[-length:])), 0)
