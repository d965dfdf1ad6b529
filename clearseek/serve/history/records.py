"""What a history is made of. A conversation is a tree of messages; its `leaf` says which of its branches is shown."""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Role = Literal["user", "assistant"]
# how an answer ended: of itself, at a bound on tokens, by its reader, with the server, by a failure; or not yet
State = Literal["writing", "done", "truncated", "stopped", "interrupted", "failed"]


def new_id() -> str:
    """An id that can't be guessed."""
    return secrets.token_urlsafe(12)


@dataclass
class Message:
    """One turn. `parent` is the message before it; those of one parent are each other's alternatives."""

    conversation: str
    parent: str | None
    role: Role
    text: str
    id: str = field(default_factory=new_id)
    created: float = field(default_factory=time.time)  # seconds since 1970
    thought: str = ""
    files: list[dict[str, Any]] = field(default_factory=list)  # name, pages: [{number, text}]
    model: str = ""
    state: State = "done"
    pair: str = ""  # answers of one pair are compared, side by side
    usage: dict[str, Any] = field(default_factory=dict)  # counts of tokens, and seconds
    error: str = ""

    @property
    def body(self) -> dict[str, Any]:
        """What is nobody else's business."""
        kept = asdict(self)
        for name in ("id", "conversation", "parent", "created"):
            del kept[name]
        return kept


@dataclass
class Conversation:
    """A tree's head. `settings` are the page's: system prompt, sampling, thinking."""

    title: str = ""
    id: str = field(default_factory=new_id)
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    leaf: str | None = None
    folder: str = ""
    pinned: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """What is nobody else's business."""
        return {name: getattr(self, name) for name in ("title", "leaf", "folder", "pinned", "settings")}


def path_to(messages: Sequence[Message], leaf: str | None) -> list[Message]:
    """The messages from the first one to `leaf`; none where there is no such message."""
    by_id: Mapping[str, Message] = {message.id: message for message in messages}
    path: list[Message] = []
    while leaf is not None and leaf in by_id:
        path.append(by_id[leaf])
        leaf = by_id[leaf].parent
    return path[::-1]
