"""The items of an answer of the Responses API, and the events that tell how one opens, grows and closes."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from clearseek.serve.blocks import Block
from clearseek.serve.log_prob_records import Records
from clearseek.serve.pieces import Piece

Told = dict[str, Any]
_PREFIXES = {"thought": "rs", "text": "msg", "call": "fc"}
_GROWS = {
    "thought": "response.reasoning_text",
    "text": "response.output_text",
    "call": "response.function_call_arguments",
}


@dataclass
class Items:
    """Those that are `done`, and the one that is open. `ending`: the status of one that closes now."""

    records: Records | None  # makes log-probabilities, where they are asked for
    done: list[Told] = field(default_factory=list)
    ending: str = "completed"
    _id: str = ""
    _log_probs: list[Told] = field(default_factory=list)  # of the open message
    _news: list[Told] = field(default_factory=list)  # of tokens whose text was not told yet

    def note_tokens(self, piece: Piece) -> None:
        """Log-probabilities of what comes next."""
        if self.records is not None:
            records = self.records.of(piece.tokens, piece.log_probs, piece.alternatives)
            self._news += records[piece.num_new_thought :]

    def open(self, index: int, block: Block) -> Iterator[Told]:
        """A new item, and its part."""
        self._id = f"{_PREFIXES[block.kind]}_{uuid.uuid4().hex}"
        self._log_probs = []
        if block.kind == "call":
            self._news = []  # they were the call's
        item = self._item(block, "in_progress")
        if block.kind != "call":
            item["content"] = []
        yield {"type": "response.output_item.added", "output_index": index, "item": item}
        if block.kind != "call":
            part = self._part(Block(block.kind))
            yield {"type": "response.content_part.added", **self._place(index, block), "part": part}

    def more(self, index: int, block: Block, text: str) -> Told:
        """More of its text."""
        told = {"type": f"{_GROWS[block.kind]}.delta", **self._place(index, block), "delta": text}
        if block.kind == "text":
            told["logprobs"] = _brief(self._news)
            self._log_probs += self._news
            self._news = []
        return told

    def close(self, index: int, block: Block) -> Iterator[Told]:
        """Its end."""
        place, name = self._place(index, block), _GROWS[block.kind]
        if block.kind == "call":
            yield {"type": f"{name}.done", **place, "arguments": block.text}
        else:
            part = self._part(block)
            more = {"logprobs": _brief(self._log_probs)} if block.kind == "text" else {}
            yield {"type": f"{name}.done", **place, "text": block.text, **more}
            yield {"type": "response.content_part.done", **place, "part": part}
        item = self._item(block, self.ending)
        self.done.append(item)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}

    def _place(self, index: int, block: Block) -> Told:
        part = {} if block.kind == "call" else {"content_index": 0}
        return {"item_id": self._id, "output_index": index, **part}

    def _part(self, block: Block) -> Told:
        if block.kind == "thought":
            return {"type": "reasoning_text", "text": block.text}
        return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": self._log_probs}

    def _item(self, block: Block, status: str) -> Told:
        if block.call is not None:
            called = {"call_id": block.call.id, "name": block.call.name, "arguments": block.text}
            return {"id": self._id, "type": "function_call", "status": status, **called}
        content = [self._part(block)]
        if block.kind == "thought":
            return {"id": self._id, "type": "reasoning", "status": status, "summary": [], "content": content}
        return {"id": self._id, "type": "message", "status": status, "role": "assistant", "content": content}


def _brief(records: list[Told]) -> list[Told]:
    """Log-probabilities as events have them: without the tokens' bytes."""
    return [
        {
            "token": one["token"],
            "logprob": one["logprob"],
            "top_logprobs": [
                {"token": other["token"], "logprob": other["logprob"]} for other in one["top_logprobs"]
            ],
        }
        for one in records
    ]
