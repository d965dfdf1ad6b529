"""An answer when it is there, in its parts, and what a program may read of each of its tokens."""

from dataclasses import asdict, dataclass
from typing import Any

from clearseek.engine.request import Completion
from clearseek.text.thoughts import ThoughtParser
from clearseek.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reply:
    """One of the answers to a conversation; `records` has a mapping for each token, as JSON takes it."""

    thought: str
    answer: str
    completion: Completion
    records: list[dict[str, Any]]


def reply_of(completion: Completion, tokenizer: Tokenizer, inside_thought: bool) -> Reply:
    """A completion as a reply; `inside_thought`: its prompt has opened the thought."""
    text = completion.text
    if text is None:
        text = tokenizer.decode(completion.said, skip_special=True)
    parser, said = ThoughtParser(inside_thought, tokenizer.thought_tags), {"thought": "", "answer": ""}
    for kind, piece in parser.feed(text) + parser.close():
        said[kind] += piece
    return Reply(said["thought"], said["answer"], completion, _records(completion, tokenizer))


def _records(completion: Completion, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    def record(token: int, log_prob: float) -> dict[str, Any]:
        return {"token": token, "text": tokenizer.decode([token]), "log_prob": log_prob}

    records = [record(*pair) for pair in zip(completion.tokens, completion.log_probs, strict=True)]
    for place in completion.forced:
        records[place]["forced"] = True
    for own, beside in zip(records, completion.alternatives, strict=False):
        own["likeliest"] = [record(*pair) for pair in zip(beside.tokens, beside.log_probs, strict=True)]
    for own, draw in zip(records, completion.draws, strict=False):
        own |= asdict(draw)
    return records
