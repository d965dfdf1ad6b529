"""A model as the server has it: its name, its tokenizer, who answers for it, how a conversation becomes a request."""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from clearseek.engine.request import Request, Sampling
from clearseek.engine.streams import stream_key
from clearseek.engine.thinking_budget import ThoughtTags
from clearseek.serve.answering import Answering, AnswerService
from clearseek.serve.errors import KnownMistake
from clearseek.serve.pieces import Pieces
from clearseek.serve.tally import Tally
from clearseek.text.tokenizer import Tokenizer
from clearseek.text.tool_calls import harmony
from clearseek.text.tool_calls.calls import Schemas
from clearseek.text.tool_calls.recognise import ReplyForm

_SHORT = 2048  # characters of a conversation whose tokens are there sooner than a thread would begin with it


@dataclass
class ServedModel:
    """`context` is the longest prompt and answer together; `defaults` are `Sampling` settings where none are asked."""

    name: str
    tokenizer: Tokenizer
    service: AnswerService
    context: int
    defaults: Mapping[str, Any]
    created: int = field(default_factory=lambda: int(time.time()))  # seconds since 1970
    root: str = ""  # the file or directory it was read from
    device: str = "cpu"  # the kind of what computes it
    tally: Tally = field(default_factory=Tally)
    patience_seconds: float = 600.0  # for an answer to begin; DeepSeek's
    used_at: float = field(default_factory=time.monotonic)
    num_claims: int = 0  # requests that have got the model and are not over

    @property
    def reply_form(self) -> ReplyForm:
        """How the model writes thoughts and calls, by its chat template."""
        return self.tokenizer.chat.reply_form

    @cached_property
    def shown_ids(self) -> tuple[int, ...]:
        """Special tokens that have to be read as text, to find the calls."""
        ids = map(self.tokenizer.token_id, self.reply_form.tokens)
        return tuple(token for token in ids if token is not None)

    @property
    def is_idle(self) -> bool:
        """Whether nobody is being answered, and no request has the model."""
        return not (self.service.num_running or self.service.num_waiting or self.num_claims)

    def claim(self, count: int = 1) -> None:
        """It has to stay open until as many releases."""
        self.num_claims, self.used_at = self.num_claims + count, time.monotonic()

    def release(self) -> None:
        """One request less has it."""
        self.num_claims, self.used_at = self.num_claims - 1, time.monotonic()

    async def submit(self, request: Request) -> Answering:
        """Begin with a request, and count it. InputError and `Busy` as the service raises them."""
        answering = await self.service.submit(request)
        self.tally.begin(answering)
        answering.wait_at_most(self.patience_seconds)
        return answering

    async def encode(
        self, messages: Sequence[Mapping[str, Any]], thinking: bool = True, **variables: Any
    ) -> list[int]:
        """A conversation's token ids, as `Tokenizer.encode_chat` has them. InputError where it can't be rendered."""

        def encode() -> list[int]:
            return self.tokenizer.encode_chat(messages, thinking=thinking, **variables)

        said = itertools.chain(variables.values(), *(message.values() for message in messages))
        if sum(len(str(value)) for value in said) <= _SHORT:
            return encode()
        return await asyncio.to_thread(encode)  # it takes a while, and others stream meanwhile

    def request(
        self,
        prompt: Sequence[int],
        max_tokens: int | None = None,
        seed: int | None = None,
        num_samples: int = 1,
        client: str = "",
        deadline_seconds: float | None = None,
        **settings: Any,
    ) -> Request:
        """What is asked of the engine; `settings` are those of `Sampling`, None where the model's own holds.

        Without `max_tokens` an answer may fill the context. InputError where the prompt fills it already.
        """
        room = self.context - len(prompt)
        if room < 1:
            raise KnownMistake(
                "context_length_exceeded",
                f"the prompt has {len(prompt)} tokens, and the model's context holds {self.context} with the answer; "
                "shorten it or start a new conversation",
                n=len(prompt),
                count=self.context,
            )
        if max_tokens is not None and max_tokens > room:
            raise KnownMistake(
                "context_length_exceeded",
                f"the prompt has {len(prompt)} tokens and max_tokens is {max_tokens}; the model's context holds "
                f"{self.context} together",
                n=len(prompt),
                count=self.context,
            )
        given = {name: value for name, value in settings.items() if value is not None}
        sampling = Sampling(
            **{**self.defaults, "shown_ids": self.shown_ids, **given, "max_tokens": max_tokens or room}
        )
        key = stream_key("serve", time.time_ns() if seed is None else seed)
        return Request(
            tuple(prompt), key, num_samples, sampling, client=client, deadline_seconds=deadline_seconds
        )

    def opens_thought(self, prompt: Sequence[int]) -> bool:
        """Whether an answer to `prompt` begins inside a thought."""
        return ThoughtTags.of(self.tokenizer).is_open_after(prompt)

    def pieces(
        self,
        answering: Answering,
        prompt: Sequence[int],
        schemas: Schemas | None = None,
        most_calls: int | None = None,
    ) -> Pieces:
        """The parts of an answer to `prompt`, read from where that ends; tools as `Pieces` has them."""
        opened, opening = self.opens_thought(prompt), self._opening(prompt)
        return Pieces(
            answering, self.tokenizer, opened, len(prompt), self.reply_form, schemas, most_calls, opening
        )

    def _opening(self, prompt: Sequence[int]) -> str:
        """What stands in the prompt of the message that its answer goes on with, where models write messages."""
        start = self.tokenizer.token_id(harmony.START) if self.reply_form.is_harmony else None
        if start is None or start not in prompt:
            return ""
        begin = len(prompt) - 1 - list(reversed(prompt)).index(start)
        return harmony.opening_of([self.tokenizer.token_name(token) or "" for token in prompt[begin:]])
