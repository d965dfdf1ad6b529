"""The JSON of an answer in Anthropic's shape, whole or as events: blocks of thinking, text and tool use."""

import json
import uuid
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from clearseek.serve.blocks import Block, Blocks, Change
from clearseek.serve.chat_answer import finish_reason
from clearseek.serve.errors import ApiError
from clearseek.serve.pieces import Piece, Pieces
from clearseek.serve.streaming import event

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
# A signature proves a thought to the service that wrote it; here nothing has to be proved, and any is taken back.
_SIGNATURE = "clearseek"
_DELTAS = {
    "thought": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "call": ("input_json_delta", "partial_json"),
}
_NOT_ENDED: dict[str, str | None] = {"stop_reason": None, "stop_sequence": None}


@dataclass
class AnthropicAnswer:
    """One answer; `model` is its name as it was asked for, `max_tokens` the bound, be it beyond the context.

    Without `tells_thoughts` blocks of thought are there and empty.
    """

    model: str
    pieces: Pieces
    max_tokens: int
    tells_thoughts: bool = True
    _blocks: Blocks = field(default_factory=Blocks)

    def __post_init__(self) -> None:
        self._head = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
        }

    async def events(self) -> AsyncIterator[bytes]:
        """Every event from message_start to message_stop."""
        started = False
        ended: Piece | None = None
        async for piece in self.pieces:
            if not started:
                yield _event({"type": "message_start", "message": self._message([], _NOT_ENDED)})
                started = True
            for change in self._blocks.of(piece):
                if self._is_told(change):
                    yield self._told(change)
            ended = piece if piece.completion is not None else ended
        for change in self._blocks.close():
            yield self._told(change)
        assert ended is not None, "an answer ends"
        yield _event({"type": "message_delta", "delta": self._ending(ended), "usage": self._usage()})
        yield _event({"type": "message_stop"})

    async def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        ended: Piece | None = None
        async for piece in self.pieces:
            deque(self._blocks.of(piece), maxlen=0)
            ended = piece if piece.completion is not None else ended
        assert ended is not None, "an answer ends"
        content = [_whole(block, self.tells_thoughts) for block in self._blocks.all]
        return self._message(content, self._ending(ended))

    def failure(self, error: ApiError) -> bytes:
        """The event that tells of an error in mid-stream."""
        return failed_event(error)

    def _message(self, content: list[dict[str, Any]], ending: dict[str, str | None]) -> dict[str, Any]:
        return {**self._head, "content": content, **ending, "usage": self._usage()}

    def _ending(self, piece: Piece) -> dict[str, str | None]:
        """Why it ended, and at which of the request's stop sequences."""
        reason = finish_reason(piece)
        stopped_by = piece.completion.stopped_by if piece.completion is not None else None
        if reason == "stop" and isinstance(stopped_by, str):
            return {"stop_reason": "stop_sequence", "stop_sequence": stopped_by}
        if reason == "length" and self.pieces.completion_tokens < self.max_tokens:
            return {"stop_reason": "model_context_window_exceeded", "stop_sequence": None}
        return {"stop_reason": _REASONS.get(reason, "end_turn"), "stop_sequence": None}

    def _usage(self) -> dict[str, Any]:
        hit = self.pieces.answering.cached_tokens
        return {
            "input_tokens": self.pieces.prompt_tokens - hit,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": hit,
            "output_tokens": self.pieces.completion_tokens,
            "output_tokens_details": {"thinking_tokens": self.pieces.thought_tokens},
        }

    def _is_told(self, change: Change) -> bool:
        return self.tells_thoughts or change[0] != "more" or self._blocks.all[-1].kind != "thought"

    def _told(self, change: Change) -> bytes:
        step, text = change
        index, block = len(self._blocks.all) - 1, self._blocks.all[-1]
        if step == "open":
            return _event({"type": "content_block_start", "index": index, "content_block": _begun(block)})
        if step == "more":
            return _delta(index, {"type": _DELTAS[block.kind][0], _DELTAS[block.kind][1]: text})
        sign = {"type": "signature_delta", "signature": _SIGNATURE}
        signed = _delta(index, sign) if block.kind == "thought" else b""
        return signed + _event({"type": "content_block_stop", "index": index})


def _begun(block: Block) -> dict[str, Any]:
    match block.kind:
        case "thought":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "text":
            return {"type": "text", "text": ""}
    assert block.call is not None, "a call begins with its name"
    return {"type": "tool_use", "id": block.call.id, "name": block.call.name, "input": {}}


def _whole(block: Block, tells_thoughts: bool) -> dict[str, Any]:
    match block.kind:
        case "thought":
            return _begun(block) | {"thinking": block.text if tells_thoughts else "", "signature": _SIGNATURE}
        case "text":
            return _begun(block) | {"text": block.text}
    return _begun(block) | {"input": _object(block.text)}


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return _event({"type": "content_block_delta", "index": index, "delta": delta})


def failed_event(error: ApiError) -> bytes:
    """The event that tells of an error, before the message or in the midst of it."""
    return _event(error.anthropic_body)


def _event(value: dict[str, Any]) -> bytes:
    return event(value, value["type"])


def _object(text: str) -> dict[str, Any]:
    """A call's input; one that broke off, at the answer's last token, has none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
