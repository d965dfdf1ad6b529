"""The JSON of a chat's answer, whole or in chunks, in OpenAI's shape or in DeepSeek's.

DeepSeek's streams tell the usage in the last chunk, asked or not; OpenAI's in a chunk of its own, if asked.
"""

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from clearseek import __version__
from clearseek.serve.errors import ApiError, of_completion
from clearseek.serve.log_prob_records import Records
from clearseek.serve.openai_chat_types import ChatRequest
from clearseek.serve.pieces import Piece, Pieces
from clearseek.serve.streaming import DONE, event, to_json
from clearseek.text.tool_calls.events import CallArguments, CallStart

FINGERPRINT = f"clearseek-{__version__}"
_REASONS = {"cancelled": "stop"}


@dataclass
class ChatAnswer:
    """One answer; `model` is its name as it was asked for."""

    model: str
    body: ChatRequest
    pieces: Pieces
    is_deepseek: bool
    with_alias: bool = False  # thoughts also by vLLM's name

    def __post_init__(self) -> None:
        self._records = Records(self.pieces.tokenizer) if self.body.logprobs else None
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }
        head = to_json({**self._head, "object": "chat.completion.chunk"})[:-1]
        self._chunk_head = b"data: " + head + b',"choices":['
        options = self.body.stream_options
        self._tells_usage = options is not None and options.include_usage
        self._no_usage = b',"usage":null' if self._tells_usage else b""

    async def events(self) -> AsyncIterator[bytes]:
        """Chunks and `[DONE]`."""
        thinks = self.pieces.opens_thought
        for sample in range(self.body.n):
            first = {"role": "assistant", "content": ""} | ({"reasoning_content": ""} if thinks else {})
            yield self._chunk(sample, first)
        left = self.body.n
        async for piece in self.pieces:
            delta = self._delta(piece)
            if piece.calls:
                delta["tool_calls"] = call_deltas(piece)
            if delta or (self._records is not None and piece.tokens):
                yield self._chunk(piece.sample, delta, log_probs=self._log_probs(piece))
            if piece.completion is not None:
                left -= 1
                yield self._chunk(piece.sample, {}, finish_reason(piece), is_last=not left)
        if self._tells_usage and not self.is_deepseek:
            yield self._chunk_head + b'],"usage":' + to_json(usage(self.pieces)) + b"}\n\n"
        yield DONE

    async def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        choices = [self._empty_choice(index) for index in range(self.body.n)]
        async for piece in self.pieces:
            choice = choices[piece.sample]
            for name, text in self._delta(piece).items():
                choice["message"][name] = (choice["message"].get(name) or "") + text
            if piece.calls:
                add_calls(choice["message"].setdefault("tool_calls", []), piece)
            for name, records in (self._log_probs(piece) or {}).items():
                choice["logprobs"][name] += records
            if piece.completion is not None:
                choice["finish_reason"] = finish_reason(piece)
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage(self.pieces)}

    def failure(self, error: ApiError) -> bytes:
        """The event that tells of an error in mid-stream."""
        return event(error.body)

    def _delta(self, piece: Piece) -> dict[str, Any]:
        texts = {"reasoning_content": piece.text("thought"), "content": piece.text("answer")}
        if self.with_alias:
            texts["reasoning"] = texts["reasoning_content"]
        return {name: text for name, text in texts.items() if text}

    def _empty_choice(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        if self.pieces.opens_thought:
            message["reasoning_content"] = ""
        log_probs: dict[str, list[Any]] | None = None
        if self._records is not None:
            log_probs = {"content": [], "reasoning_content": []}
        return {"index": index, "message": message, "logprobs": log_probs, "finish_reason": None}

    def _log_probs(self, piece: Piece) -> dict[str, list[dict[str, Any]]] | None:
        if self._records is None:
            return None
        records = self._records.of(piece.tokens, piece.log_probs, piece.alternatives, piece.draws)
        return {
            "content": records[piece.num_new_thought :],
            "reasoning_content": records[: piece.num_new_thought],
        }

    def _chunk(
        self,
        sample: int,
        delta: dict[str, Any],
        reason: str | None = None,
        log_probs: dict[str, Any] | None = None,
        is_last: bool = False,
    ) -> bytes:
        tail = b'"' + reason.encode() + b'"' if reason else b"null"
        told = b"null" if log_probs is None else to_json(log_probs)
        ends = b',"usage":' + to_json(usage(self.pieces)) if is_last and self.is_deepseek else self._no_usage
        return (
            self._chunk_head + b'{"index":%d,"delta":' % sample + to_json(delta) + b',"logprobs":' + told
            + b',"finish_reason":' + tail + b"}]" + ends + b"}\n\n"
        )  # fmt: skip


def call_deltas(piece: Piece) -> list[dict[str, Any]]:
    """What is new of calls, as streams tell it."""
    deltas: list[dict[str, Any]] = []
    for call in piece.calls:
        if isinstance(call, CallStart):
            function = {"name": call.name, "arguments": ""}
            deltas.append({"index": call.index, "id": call.id, "type": "function", "function": function})
        elif isinstance(call, CallArguments):
            deltas.append({"index": call.index, "function": {"arguments": call.text}})
    return deltas


def add_calls(calls: list[dict[str, Any]], piece: Piece) -> None:
    """Add what is new of calls to those that there are."""
    for call in piece.calls:
        if isinstance(call, CallStart):
            calls.append(
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            )
        elif isinstance(call, CallArguments):
            calls[call.index]["function"]["arguments"] += call.text


def finish_reason(piece: Piece) -> str:
    """OpenAI's word for why a sample ended. `ApiError` where it failed."""
    assert piece.completion is not None, "only the last piece says it"
    if piece.completion.error is not None:
        raise of_completion(piece.completion)
    reason = piece.completion.finish_reason
    return "tool_calls" if piece.num_calls and reason == "stop" else _REASONS.get(reason, reason)


def usage(pieces: Pieces) -> dict[str, Any]:
    """Tokens of the prompt and of the answer, as OpenAI and DeepSeek count them."""
    prompt, written = pieces.prompt_tokens, pieces.completion_tokens
    hit = pieces.answering.cached_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": hit},
        "completion_tokens_details": {"reasoning_tokens": pieces.thought_tokens},
        "prompt_cache_hit_tokens": hit,
        "prompt_cache_miss_tokens": prompt - hit,
    }
