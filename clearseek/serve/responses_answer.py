"""The JSON of an answer in the shape of the Responses API, whole or as numbered events.

A thought is an item of type "reasoning" whose content is the thought itself, as DeepSeek's service tells it.
"""

import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from clearseek.serve.blocks import Blocks, Change
from clearseek.serve.chat_answer import finish_reason
from clearseek.serve.errors import ApiError
from clearseek.serve.log_prob_records import Records
from clearseek.serve.pieces import Piece, Pieces
from clearseek.serve.responses_items import Items
from clearseek.serve.responses_types import ResponsesRequest
from clearseek.serve.streaming import event

Told = dict[str, Any]


@dataclass
class ResponsesAnswer:
    """One answer; `model` is its name as it was asked for."""

    model: str
    body: ResponsesRequest
    pieces: Pieces
    _blocks: Blocks = field(default_factory=Blocks)
    _number: int = 0  # of the next event

    def __post_init__(self) -> None:
        self._head = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "model": self.model,
        }
        self._items = Items(Records(self.pieces.tokenizer) if self.body.wants_log_probs else None)

    async def events(self) -> AsyncIterator[bytes]:
        """Every event from response.created to response.completed or response.incomplete."""
        for kind in ("response.created", "response.in_progress"):
            yield self._numbered({"type": kind, "response": self._response("in_progress")})
        ended: Piece | None = None
        async for piece in self.pieces:
            for told in self._changes(piece):
                yield self._numbered(told)
            ended = piece if piece.completion is not None else ended
        status = self._end(ended)
        for told in self._told(self._blocks.close()):
            yield self._numbered(told)
        yield self._numbered({"type": f"response.{status}", "response": self._response(status)})

    async def whole(self) -> Told:
        """The answer as one object."""
        ended: Piece | None = None
        async for piece in self.pieces:
            deque(self._changes(piece), maxlen=0)
            ended = piece if piece.completion is not None else ended
        status = self._end(ended)
        deque(self._told(self._blocks.close()), maxlen=0)
        return self._response(status)

    def failure(self, error: ApiError) -> bytes:
        """The event that tells of an error in mid-stream."""
        return self._numbered({"type": "response.failed", "response": self._response("failed", error)})

    def _changes(self, piece: Piece) -> Iterator[Told]:
        self._items.note_tokens(piece)
        yield from self._told(self._blocks.of(piece))

    def _told(self, changes: Iterator[Change]) -> Iterator[Told]:
        for step, text in changes:
            index, block = len(self._blocks.all) - 1, self._blocks.all[-1]
            if step == "open":
                yield from self._items.open(index, block)
            elif step == "more":
                yield self._items.more(index, block, text)
            else:
                yield from self._items.close(index, block)

    def _end(self, ended: Piece | None) -> str:
        assert ended is not None, "an answer ends"
        is_whole = finish_reason(ended) != "length"
        self._items.ending = "completed" if is_whole else "incomplete"
        return self._items.ending

    def _numbered(self, told: Told) -> bytes:
        numbered = {**told, "sequence_number": self._number}
        self._number += 1
        return event(numbered, told["type"])

    def _response(self, status: str, error: ApiError | None = None) -> Told:
        is_over, incomplete = status in ("completed", "incomplete"), {"reason": "max_output_tokens"}
        return {
            **self._head,
            "status": status,
            "error": None if error is None else {"code": "server_error", "message": error.message},
            "incomplete_details": incomplete if status == "incomplete" else None,
            "completed_at": int(time.time()) if status == "completed" else None,
            "output": list(self._items.done) if is_over else [],
            "usage": _usage(self.pieces) if is_over else None,
            **_echo(self.body, self.pieces),
        }


def _usage(pieces: Pieces) -> Told:
    prompt, written, hit = pieces.prompt_tokens, pieces.completion_tokens, pieces.answering.cached_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": hit, "cache_write_tokens": prompt - hit},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": pieces.thought_tokens},
        "total_tokens": prompt + written,
    }


def _echo(body: ResponsesRequest, pieces: Pieces) -> Told:
    """What was asked, with the values that held where nothing was said."""
    sampling = pieces.answering.request.sampling
    choice = body.tool_choice or "auto"
    return {
        "background": False,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "temperature": sampling.temperature,
        "text": {"format": body.text.format.model_dump(by_alias=True, exclude_none=True)},
        "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
        "tools": [{"parameters": None, "strict": None, **tool.model_dump()} for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "user": body.user,
    }


def error_event(error: ApiError) -> bytes:
    """The event that tells of an error before there is a response."""
    told = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
    return event(told | {"sequence_number": 0}, "error")
