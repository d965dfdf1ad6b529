"""An answer as a row of blocks that open, grow and close: Anthropic's content, the Responses API's items."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from clearseek.serve.pieces import Piece
from clearseek.text.tool_calls.events import CallArguments, CallStart, Content, Thought

Change = tuple[Literal["open", "more", "close"], str]  # the text is what is more


@dataclass
class Block:
    """A thought, a text or a call; `text` is of a call its arguments."""

    kind: Literal["thought", "text", "call"]
    call: CallStart | None = None
    text: str = ""


@dataclass
class Blocks:
    """All of an answer's so far. Changes are those of the last one."""

    all: list[Block] = field(default_factory=list)
    is_open: bool = False
    _blank: str = ""  # space between a thought, a text and calls is no block, but a text may begin with it

    def of(self, piece: Piece) -> Iterator[Change]:
        """What a piece changes."""
        for one in piece.events:
            match one:
                case Thought(text):
                    yield from self._say("thought", text)
                case Content(text):
                    yield from self._say("text", text)
                case CallStart():
                    yield from self._open(Block("call", one))
                case CallArguments(_, text):
                    yield self._more(text)

    def close(self) -> Iterator[Change]:
        """The last one is over, if there is any that is not."""
        self._blank = ""
        if self.is_open:
            self.is_open = False
            yield "close", ""

    def _say(self, kind: Literal["thought", "text"], text: str) -> Iterator[Change]:
        if not self.is_open or self.all[-1].kind != kind:
            text = self._blank + text
            if not text.strip():
                self._blank = text
                return
            yield from self._open(Block(kind))
            text = text.lstrip("\n")
        yield self._more(text)

    def _open(self, block: Block) -> Iterator[Change]:
        yield from self.close()
        self.all.append(block)
        self.is_open = True
        yield "open", ""

    def _more(self, text: str) -> Change:
        self.all[-1].text += text
        return "more", text
