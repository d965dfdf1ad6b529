"""An answer in its parts as it is written: thought, answer, calls of tools, with the tokens that they are made of."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from clearseek.engine.request import Alternatives, Completion, Draw
from clearseek.serve.answering import Answering, Delta
from clearseek.text.thoughts import Kind
from clearseek.text.tokenizer import Tokenizer
from clearseek.text.tool_calls.calls import Schemas
from clearseek.text.tool_calls.events import (
    CallArguments,
    CallEnd,
    CallStart,
    Content,
    Event,
    Malformed,
    Thought,
)
from clearseek.text.tool_calls.parser import ReplyParser
from clearseek.text.tool_calls.recognise import ReplyForm

CallEvent = CallStart | CallArguments | CallEnd
PartEvent = Thought | Content | CallEvent


@dataclass
class Piece:
    """What is new of one sample, `events` in the order in which it was written.

    `num_tokens`, `num_thought_tokens` and `num_calls` count all that it has so far.
    """

    sample: int
    events: list[PartEvent]
    tokens: list[int]
    log_probs: list[float]
    alternatives: list[Alternatives]
    draws: list[Draw]
    num_tokens: int
    num_thought_tokens: int
    num_new_thought: int  # of its own tokens, those that are thought, tags with them
    completion: Completion | None = None
    num_calls: int = 0

    def text(self, kind: Kind) -> str:
        """What it says of one kind."""
        wanted = Thought if kind == "thought" else Content
        return "".join(one.text for one in self.events if isinstance(one, wanted))

    @property
    def calls(self) -> list[CallEvent]:
        """What it says of calls."""
        return [one for one in self.events if not isinstance(one, Thought | Content)]


@dataclass
class _Sample:
    parser: ReplyParser
    was_thinking: bool
    num_calls: int = 0
    num_tokens: int = 0
    num_thought_tokens: int = 0


@dataclass
class Pieces:
    """Parts what an answering gives; an async iterator of pieces, which counts tokens as they come.

    `form` is how the model writes; `schemas` are the tools' by name, None where none may be called; of more calls than
    `most_calls` the others are left out. `opening` is what the prompt has of the message that is gone on with.
    """

    answering: Answering
    tokenizer: Tokenizer
    opens_thought: bool
    prompt_tokens: int
    form: ReplyForm = ReplyForm()  # noqa: RUF009  it is frozen
    schemas: Schemas | None = None
    most_calls: int | None = None
    opening: str = ""
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
            parser = ReplyParser(self.form, self.opens_thought, self.schemas)
            parser.feed(self.opening)
            sample = self._samples[delta.sample] = _Sample(parser, self.opens_thought)
        parsed = sample.parser.feed(delta.text)
        if delta.completion is not None:
            parsed += sample.parser.finish()
        events = self._shown(parsed)
        thought, closes = self._thought_tokens(sample, delta.tokens, events)
        sample.num_calls += sum(isinstance(event, CallStart) for event in events)
        sample.num_tokens += len(delta.tokens)
        sample.num_thought_tokens += thought
        return Piece(
            delta.sample, events, delta.tokens, delta.log_probs, delta.alternatives, delta.draws,
            sample.num_tokens, sample.num_thought_tokens, thought + closes, delta.completion, sample.num_calls,
        )  # fmt: skip

    def _shown(self, events: list[Event]) -> list[PartEvent]:
        shown: list[PartEvent] = []
        for event in events:
            match event:
                case Malformed(text):
                    shown.append(Content(text))
                case Thought() | Content():
                    shown.append(event)
                case _ if self.most_calls is None or event.index < self.most_calls:
                    shown.append(event)
        return shown

    def _thought_tokens(
        self, sample: "_Sample", tokens: list[int], events: list[PartEvent]
    ) -> tuple[int, int]:
        """How many of a delta's tokens are thought, and how many tags close it. Without such tokens its text tells."""
        start, end = map(self.tokenizer.token_id, (self.form.thought.start, self.form.thought.end))
        if end is None or self.form.is_harmony:
            is_thought = bool(events) and all(isinstance(one, Thought) for one in events)
            return (len(tokens) if is_thought else 0), 0
        if not sample.was_thinking and sample.num_tokens == 0 and tokens[:1] == [start]:
            sample.was_thinking = True
            thought, closes = self._thought_tokens(sample, tokens[1:], events)
            return thought, closes + 1  # its opening tag is none of the answer's tokens either
        if not sample.was_thinking:
            return 0, 0
        if end not in tokens:
            return len(tokens), 0
        sample.was_thinking = False
        return tokens.index(end), 1
