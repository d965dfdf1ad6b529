"""What a parser of a reply gives, piece by piece."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Thought:
    """More of the thought."""

    text: str


@dataclass(frozen=True)
class Content:
    """More of the answer."""

    text: str


@dataclass(frozen=True)
class Malformed:
    """Text that began like a call and is none; to the reader it is part of the answer."""

    text: str


@dataclass(frozen=True)
class CallStart:
    """A call begins; `index` counts the calls of one reply from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class CallArguments:
    """More of a call's arguments, as JSON text."""

    index: int
    text: str


@dataclass(frozen=True)
class CallEnd:
    """A call's arguments are over. `is_whole`: they are one JSON object; else they broke off or went wrong."""

    index: int
    is_whole: bool


Event = Thought | Content | Malformed | CallStart | CallArguments | CallEnd


@dataclass
class Call:
    """One call as a whole."""

    id: str
    name: str
    arguments: str = ""
    is_whole: bool = False


@dataclass
class Gathered:
    """A reply as a whole."""

    thought: str = ""
    content: str = ""
    malformed: str = ""  # the part of `content` that began like calls
    calls: list[Call] = field(default_factory=list)

    def add(self, events: Iterable[Event]) -> "Gathered":
        """Take more events in; gives itself back."""
        for event in events:
            self._add(event)
        return self

    def _add(self, event: Event) -> None:
        match event:
            case Thought(text):
                self.thought += text
            case Content(text):
                self.content += text
            case Malformed(text):
                self.content += text
                self.malformed += text
            case CallStart(_, id, name):
                self.calls.append(Call(id, name))
            case CallArguments(index, text):
                self.calls[index].arguments += text
            case CallEnd(index, is_whole):
                self.calls[index].is_whole = is_whole
