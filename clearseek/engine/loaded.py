"""A model as Python sees it: scores, answers, the torch module. `published` opens and saves it.

It stands on this floor because it answers through the engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from clearseek.config.errors import InputError
from clearseek.config.load import nearest
from clearseek.config.model import ModelConfig
from clearseek.engine.defaults import DEFAULTS
from clearseek.engine.engine import Engine
from clearseek.engine.formats import Format
from clearseek.engine.mixed_formats import Formats
from clearseek.engine.request import Alternatives, Completion, Draw, FinishReason, Request, Sampling
from clearseek.engine.speculation import read_speculation
from clearseek.engine.streams import stream_key
from clearseek.model.decoder import Decoder
from clearseek.text.thoughts import ThoughtParser
from clearseek.text.tokenizer import Tokenizer

Message = Mapping[str, Any]
Prompt = str | Sequence[Message] | Sequence[int]  # a question, a conversation, or token ids as they are


@dataclass(frozen=True)
class Answer:
    """One answer. `text` is all that was generated; after token ids of one's own it has no parts.

    `tokens` include the token that ended it; `log_probs` are theirs, at the temperature and before `top_p`. `error`
    says what ended one of several answers whose `finish_reason` is "error"; of a single one it is raised. What follows
    is as `engine.request.Completion` has it, the last five where `engine.request.Sampling` asks for them.
    """

    text: str
    thought: str
    answer: str | None  # None: the thought never closed
    tokens: list[int]
    log_probs: list[float]
    finish_reason: FinishReason
    error: str | None = None
    stopped_by: str | int | None = None
    forced: frozenset[int] = frozenset()
    entropy: float = 0.0
    weights_version: int = 0  # how often the decoder's weights had been changed since it was opened
    alternatives: list[Alternatives] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    prompt_log_probs: list[float | None] | None = None
    prompt_alternatives: list[Alternatives | None] = field(default_factory=list)
    routed_experts: np.ndarray | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.text


class Model:
    """A decoder with its tokenizer. `decoder` is the torch module, to train or to look into as one likes."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        directory: Path,
        dtype: torch.dtype,
        defaults: Mapping[str, Any] = DEFAULTS,
        form: Format | Formats | None = None,
    ) -> None:
        """`directory` is where both were read; activations are computed in `dtype`.

        `defaults` are of `generate`, which keeps weights in `form`. InputError where they can't be kept so.
        """
        self.decoder, self.tokenizer, self.directory, self.dtype = decoder, tokenizer, directory, dtype
        self.defaults, self.form = defaults, form
        self._weights, self._weights_version = self._versions(), 0
        self._engine: tuple[tuple[list[int], str | None], Engine] | None = None
        if form is not None:
            self._current_engine(None)

    @property
    def config(self) -> ModelConfig:
        """Its sizes and switches."""
        return self.decoder.config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.embedding.weight.device

    @property
    def num_parameters(self) -> int:
        """All weights, of multi-token modules too; shared ones count once."""
        return sum(parameter.numel() for parameter in self.decoder.parameters())

    def logits(self, token_ids: Tensor | Sequence[Sequence[int]]) -> Tensor:
        """Scores of every next token: ids [B, T] → [B, T, V] in fp32. Gradients reach the weights where they are on.

        Raises InputError for another shape, for ids beyond the vocabulary, and for more than the context holds.
        """
        tokens = self._checked(torch.as_tensor(token_ids, device=self.device))
        hidden = self.decoder(tokens, torch.ones_like(tokens), self.dtype, 0)
        return self.decoder.logits(hidden.states)

    @overload
    def generate(
        self,
        prompts: Prompt,
        *,
        max_tokens: int = ...,
        temperature: float | None = ...,
        top_p: float | None = ...,
        seed: int = ...,
        thinking: bool = ...,
        speculation: str | None = ...,
        deadline_seconds: float | None = ...,
        n: None = ...,
        best_of: int | None = ...,
        **settings: Any,
    ) -> Answer: ...
    @overload
    def generate(
        self,
        prompts: list[str] | list[list[Message]] | list[list[int]],
        *,
        max_tokens: int = ...,
        temperature: float | None = ...,
        top_p: float | None = ...,
        seed: int = ...,
        thinking: bool = ...,
        speculation: str | None = ...,
        deadline_seconds: float | None = ...,
        n: None = ...,
        best_of: int | None = ...,
        **settings: Any,
    ) -> list[Answer]: ...
    @overload
    def generate(self, prompts: Prompt, *, n: int, **settings: Any) -> list[Answer]: ...
    @overload
    def generate(
        self, prompts: list[str] | list[list[Message]] | list[list[int]], *, n: int, **settings: Any
    ) -> list[list[Answer]]: ...
    def generate(
        self,
        prompts: Any,
        *,
        max_tokens: int = 512,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int = 0,
        thinking: bool = True,
        speculation: str | None = None,
        deadline_seconds: float | None = None,
        n: int | None = None,
        best_of: int | None = None,
        **settings: Any,
    ) -> Answer | list[Answer] | list[list[Answer]]:
        """Answer a question, a conversation of messages, or go on after token ids; or a list of them, all at once.

        At most `max_tokens` each, fewer where the context ends; temperature 0 takes the likeliest token. What is left
        out is as `generation_config.json` says, else temperature 0.6 and top_p 0.95. An answer
        depends on its prompt and the seed, not on what is answered beside it. `thinking` is the chat template's.
        `speculation` ("mtp", "ngram" or a draft model's directory, ":TOKENS" behind it) may bring it sooner. After
        `deadline_seconds` what there is of an answer is its answer. With `n` each prompt has a list of so many answers;
        of `best_of` drawn they are those of the highest mean log-probability. Other
        `settings` are those of `engine.request.Sampling`, such as `top_k`, `stop`, `thinking_budget` or `constraint`.
        Raises InputError for settings that are unknown or out of range and for prompts that are empty or fill the
        context, before anything runs, and where a single answer fails; of several the others go on.
        """
        is_one = _is_one(prompts)
        asked = [self._encode(prompt, thinking) for prompt in ([prompts] if is_one else prompts)]
        room = [self._room(ids, max_tokens) for ids, _ in asked]
        given = {"temperature": temperature, "top_p": top_p}
        _check_names(settings)
        settings |= {name: value for name, value in given.items() if value is not None}
        settings = {**self.defaults, **settings}
        key, count = stream_key("session", seed), 1 if n is None else n
        requests = [
            Request(
                tuple(ids), key, count, Sampling(max_tokens=most, **settings), best_of,
                deadline_seconds=deadline_seconds,
            )
            for (ids, _), most in zip(asked, room, strict=True)
        ]  # fmt: skip
        groups = [
            [self._answer(completion, parser) for completion in group]
            for group, (_, parser) in zip(
                self._current_engine(speculation).generate(requests), asked, strict=True
            )
        ]
        if is_one and n is None and groups[0][0].error is not None:
            raise InputError(groups[0][0].error)
        if n is not None:
            return groups[0] if is_one else groups
        return groups[0][0] if is_one else [group[0] for group in groups]

    def _encode(self, prompt: Prompt, thinking: bool) -> tuple[list[int], ThoughtParser | None]:
        """Token ids of a prompt, and what parts its answer; token ids of one's own say nothing of that."""
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        if len(prompt) and not isinstance(prompt[0], Mapping):
            ids = [int(token) for token in prompt if not isinstance(token, Mapping)]
            return self._checked(torch.tensor([ids])).tolist()[0], None
        messages: Sequence[Message] = [message for message in prompt if isinstance(message, Mapping)]
        if not messages:
            raise InputError("a prompt is empty; give a question, messages, or at least one token id")
        opened = self.tokenizer.chat.render(messages, thinking=thinking).rstrip().endswith("<think>")
        return self.tokenizer.encode_chat(messages, thinking=thinking), ThoughtParser(opened)

    def _room(self, prompt: Sequence[int], max_tokens: int) -> int:
        context = self.config.max_position_embeddings
        if len(prompt) >= context:
            raise InputError(
                f"a prompt of {len(prompt)} tokens fills the model's context of {context} tokens"
            )
        return min(max_tokens, context - len(prompt))

    def _checked(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] that the model knows, and no more than it can place; else InputError."""
        context, vocabulary = self.config.max_position_embeddings, self.config.vocab_size
        if tokens.ndim != 2 or not tokens.numel() or tokens.is_floating_point():
            shape = f"{list(tokens.shape)} of {str(tokens.dtype).removeprefix('torch.')}"
            raise InputError(f"token ids have to be integers [B, T], got {shape}")
        if tokens.shape[1] > context:
            raise InputError(f"{tokens.shape[1]} tokens are more than the model's context of {context}")
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary:
            raise InputError(
                f"token ids have to be from 0 to {vocabulary - 1}, got {tokens.min()} to {tokens.max()}"
            )
        return tokens.long()

    def _current_engine(self, speculation: str | None) -> Engine:
        """An engine over the weights as they are; made again when one has changed."""
        weights = self._versions()
        if weights != self._weights:
            self._weights, self._weights_version = weights, self._weights_version + 1
            self.decoder.stored = None  # what a file has is no longer what is asked
        key = weights, speculation
        if self._engine is None or self._engine[0] != key:
            guessing = None if speculation is None else read_speculation(speculation, self.device)
            engine = Engine(
                self.decoder, self.tokenizer.stop_ids, self._computed, copies=self.form is not None, form=self.form,
                tokenizer=self.tokenizer, speculation=guessing,
            )  # fmt: skip
            self._engine = key, engine
        return self._engine[1]

    @property
    def _computed(self) -> torch.dtype:
        """What answers are computed in."""
        if self.form is None:
            return self.dtype
        return torch.float32 if self.form.name == "float32" else torch.bfloat16

    def _versions(self) -> list[int]:
        """Of the weights: others once one has changed."""
        return [tensor._version for tensor in self.decoder.state_dict().values()]

    def _answer(self, completion: Completion, parser: ThoughtParser | None) -> Answer:
        """A completion as text, without the token that ended it."""
        text = self.tokenizer.decode(completion.said) if completion.text is None else completion.text
        thought, answer = ("", text) if parser is None else _parts(parser, text)
        shared = {one.name for one in fields(Answer)} & {one.name for one in fields(Completion)}
        told = {name: getattr(completion, name) for name in shared}
        own = {"text": text, "thought": thought, "answer": answer, "weights_version": self._weights_version}
        return Answer(**{**told, **own})


def _check_names(settings: Mapping[str, Any]) -> None:
    """InputError for a setting that `generate` has not."""
    known = [
        *(one.name for one in fields(Sampling)),
        "seed",
        "thinking",
        "speculation",
        "deadline_seconds",
        "best_of",
    ]
    for name in settings:
        if name not in known:
            raise InputError(f"generate has no setting {name!r}{nearest(name, known)}")


def _parts(parser: ThoughtParser, text: str) -> tuple[str, str | None]:
    events = parser.feed(text) + parser.close()
    parts = {name: "".join(piece for kind, piece in events if kind == name) for name in ("thought", "answer")}
    return parts["thought"], None if parser.inside_thought else parts["answer"].strip()


def _is_one(prompts: Any) -> bool:
    """Whether this is a single prompt; the first thing in it tells."""
    if isinstance(prompts, str):
        return True
    if isinstance(prompts, Tensor):
        return prompts.ndim < 2
    if not isinstance(prompts, Sequence):
        raise InputError(
            f"prompts are a text, messages, token ids, or a list of them; got {type(prompts).__name__}"
        )
    return bool(len(prompts)) and isinstance(prompts[0], Mapping | Integral)
