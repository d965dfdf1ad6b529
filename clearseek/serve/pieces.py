"""An answer in its parts as it is written: thought and answer, with the tokens that they are made of."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal

from clearseek.engine.request import Alternatives, Completion
from clearseek.serve.answering import Answering, Delta
from clearseek.text.thoughts import Kind, ThoughtParser
from clearseek.text.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "error"]


@dataclass
class Piece:
    """What is new of one sample. `num_tokens` and `num_thought_tokens` count all of its tokens so far."""

    sample: int
    parts: list[tuple[Kind, str]]
    tokens: list[int]
    log_probs: list[float]
    alternatives: list[Alternatives]
    num_tokens: int
    num_thought_tokens: int
    num_new_thought: int  # of its own tokens, those that are thought, the closing tag with them
    completion: Completion | None = None

    def text(self, kind: Kind) -> str:
        """What it says of one kind."""
        return "".join(text for of, text in self.parts if of == kind)


@dataclass
class _Sample:
    parser: ThoughtParser
    num_tokens: int = 0
    num_thought_tokens: int = 0


@dataclass
class Pieces:
    """Parts what an answering gives; an async iterator of pieces, and its `usage` when that has ended."""

    answering: Answering
    tokenizer: Tokenizer
    opens_thought: bool
    prompt_tokens: int
    on_end: Callable[[], None] = lambda: None
    _samples: dict[int, _Sample] = field(default_factory=dict)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        try:
            async for delta in self.answering:
                yield self._piece(delta)
        finally:
            self.on_end()

    @property
    def completion_tokens(self) -> int:
        """Tokens of all samples so far."""
        return sum(sample.num_tokens for sample in self._samples.values())

    @property
    def thought_tokens(self) -> int:
        """Those of them that are thought."""
        return sum(sample.num_thought_tokens for sample in self._samples.values())

    def _piece(self, delta: Delta) -> Piece:
        sample = self._samples.get(delta.sample)
        if sample is None:
            sample = self._samples[delta.sample] = _Sample(ThoughtParser(self.opens_thought))
        was_inside = sample.parser.inside_thought
        parts = sample.parser.feed(delta.text)
        if delta.completion is not None:
            parts += sample.parser.close()
        sample.num_tokens += len(delta.tokens)
        thought = self._thought_tokens(delta.tokens, was_inside, sample.parser)
        sample.num_thought_tokens += thought
        closes = was_inside and not sample.parser.inside_thought
        return Piece(
            delta.sample, parts, delta.tokens, delta.log_probs, delta.alternatives,
            sample.num_tokens, sample.num_thought_tokens, min(thought + closes, len(delta.tokens)), delta.completion,
        )  # fmt: skip

    def _thought_tokens(self, tokens: list[int], was_inside: bool, parser: ThoughtParser) -> int:
        """How many of a delta's tokens are thought, its closing tag left out."""
        if not was_inside and not parser.inside_thought:
            return 0
        if parser.inside_thought:
            return len(tokens)
        end = self.tokenizer.think_end_id
        return tokens.index(end) if end in tokens else len(tokens)
