"""The JSON of an answer in Anthropic's shape, whole or as events: blocks of thinking, text and tool use."""

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from clearseek.serve.chat_answer import finish_reason
from clearseek.serve.pieces import Piece, Pieces
from clearseek.serve.streaming import event
from clearseek.text.tool_calls.events import CallArguments, CallStart

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
# A signature proves a thought to the service that wrote it; here nothing has to be proved, and any is taken back.
_SIGNATURE = "clearseek"


@dataclass
class AnthropicAnswer:
    """One answer; `model` is its name as it was asked for."""

    model: str
    pieces: Pieces
    _blocks: list[dict[str, Any]] = field(default_factory=list)
    _is_open: bool = False
    _input: str = ""  # the arguments of the open call

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
                yield _event({"type": "message_start", "message": self._message([], None)})
                started = True
            for one in self._of(piece):
                yield _event(one)
            ended = piece if piece.completion is not None else ended
        for one in self._close():
            yield _event(one)
        assert ended is not None, "an answer ends"
        delta = {"stop_reason": _reason(ended), "stop_sequence": None}
        yield _event({"type": "message_delta", "delta": delta, "usage": self._usage()})
        yield _event({"type": "message_stop"})

    async def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        ended: Piece | None = None
        async for piece in self.pieces:
            for _ in self._of(piece):
                pass
            ended = piece if piece.completion is not None else ended
        for _ in self._close():
            pass
        assert ended is not None, "an answer ends"
        return self._message(self._blocks, _reason(ended))

    def _message(self, content: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
        told = {"content": content, "stop_reason": reason, "stop_sequence": None, "usage": self._usage()}
        return {**self._head, **told}

    def _usage(self) -> dict[str, Any]:
        hit = self.pieces.answering.cached_tokens
        return {
            "input_tokens": self.pieces.prompt_tokens - hit,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": hit,
            "output_tokens": self.pieces.completion_tokens,
        }

    def _of(self, piece: Piece) -> Iterator[dict[str, Any]]:
        for kind, text in piece.parts:
            name = "thinking" if kind == "thought" else "text"
            if not self._is_open or self._blocks[-1]["type"] != name:
                if not text.strip():
                    continue  # space between a thought, a text and calls is no block
                text = text.lstrip("\n")
                yield from self._open(
                    {"type": name, name: ""} | ({"signature": ""} if name == "thinking" else {})
                )
            self._blocks[-1][name] += text
            yield self._delta({"type": f"{name}_delta", name: text})
        for call in piece.calls:
            if isinstance(call, CallStart):
                yield from self._open({"type": "tool_use", "id": call.id, "name": call.name, "input": {}})
            elif isinstance(call, CallArguments):
                self._input += call.text
                yield self._delta({"type": "input_json_delta", "partial_json": call.text})

    def _open(self, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self._close()
        self._blocks.append(block)
        self._is_open, self._input = True, ""
        yield {"type": "content_block_start", "index": len(self._blocks) - 1, "content_block": dict(block)}

    def _close(self) -> Iterator[dict[str, Any]]:
        if not self._is_open:
            return
        block = self._blocks[-1]
        if block["type"] == "thinking":
            block["signature"] = _SIGNATURE
            yield self._delta({"type": "signature_delta", "signature": _SIGNATURE})
        elif block["type"] == "tool_use":
            block["input"] = _object(self._input)
        self._is_open = False
        yield {"type": "content_block_stop", "index": len(self._blocks) - 1}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": len(self._blocks) - 1, "delta": delta}


def _event(value: dict[str, Any]) -> bytes:
    return event(value, value["type"])


def _reason(piece: Piece) -> str:
    return _REASONS.get(finish_reason(piece), "end_turn")


def _object(text: str) -> dict[str, Any]:
    """A call's input; one that broke off, at the answer's last token, has none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
