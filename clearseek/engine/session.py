"""One conversation partner: a model directory opened for talking, whose answers arrive token by token."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from clearseek.config.errors import InputError
from clearseek.engine.best_of import pick_best
from clearseek.engine.defaults import DEFAULTS, default_settings
from clearseek.engine.ending import Ending
from clearseek.engine.engine import Engine
from clearseek.engine.formats import Format
from clearseek.engine.layout import why_plain
from clearseek.engine.mixed_formats import Formats, read_formats, stored_formats
from clearseek.engine.reply import Reply, reply_of
from clearseek.engine.request import Completion, FinishReason, Request, Sampling
from clearseek.engine.speculation import Speculation, read_speculation
from clearseek.engine.streams import stream_key
from clearseek.model.decoder import Decoder
from clearseek.model.device import choose_device
from clearseek.model.gguf.header import is_gguf
from clearseek.model.gguf.read import open_gguf
from clearseek.model.resolve import resolve_source
from clearseek.model.source import load_source, tokenizer_directory
from clearseek.text.thoughts import Kind, ThoughtParser
from clearseek.text.tokenizer import Tokenizer

_SLOTS = 16  # answers at once; more wait their turn


def open_session(
    model: str,
    device: str = "auto",
    form: str | None = None,
    speculation: str | None = None,
    num_slots: int = _SLOTS,
    cache_gib: float | None = None,
    exact: bool | None = None,
) -> "Session":
    """Open a run, one of its checkpoints, a Hugging Face directory or a GGUF file for talking.

    `form` is how weights are kept, as `read_formats` takes it, by default in the device's best dtype, and as a GGUF
    file keeps them where that is in Q8_0 or Q4_0; `speculation` is what `read_speculation` takes, `cache_gib` the most
    memory for the cache, by default half of what is free once the weights are there, and `exact` is `Engine`'s. Raises
    InputError where there is no such model or device, where its tokenizer does not belong to it, and where it can't be
    kept or speculated with so.
    """
    wanted = None if form is None else read_formats(form)
    directory = resolve_source(Path(model))
    dtype = "auto" if wanted is None else "float32" if wanted.name == "float32" else "bfloat16"
    choice = choose_device(device, dtype)
    with tokenizer_directory(directory) as files:
        tokenizer = Tokenizer.load(files)
        defaults = default_settings(files)
    decoder, wanted = _decoder(directory, choice.device, wanted)
    tokenizer.require_room(decoder.config.vocab_size, directory)
    guessing = None if speculation is None else read_speculation(speculation, choice.device)
    computed = torch.bfloat16 if wanted is not None and wanted.is_quantised else choice.dtype
    cache_bytes = None if cache_gib is None else int(cache_gib * 2**30)
    return Session(decoder, tokenizer, computed, defaults, wanted, guessing, num_slots, cache_bytes, exact)


def _decoder(
    source: Path, device: torch.device, form: Format | Formats | None
) -> tuple[Decoder, Format | Formats | None]:
    """A source's decoder and its format; of a GGUF file that suits the kernels as the file keeps its weights."""
    if is_gguf(source) and device.type == "cpu":
        decoder = open_gguf(source)
        wanted = form or stored_formats(decoder)
        if wanted is not None and why_plain(decoder, wanted) is None:
            return decoder, wanted
    return load_source(source, device=device), form


class Session:
    """A loaded model and its tokenizer, sampled by its `defaults` where nothing else is asked.

    `prompt_tokens`, `completion_tokens`, `seconds_to_first_token`, `tokens_per_second` (of those after the first) and
    `finish_reason` tell of what was answered last.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        dtype: torch.dtype,
        defaults: Mapping[str, Any] = DEFAULTS,
        form: Format | Formats | None = None,
        speculation: Speculation | None = None,
        num_slots: int = _SLOTS,
        cache_bytes: int | None = None,
        exact: bool | None = None,
    ) -> None:
        self.model, self.tokenizer, self.defaults = model, tokenizer, defaults
        self.engine = Engine(
            model,
            tokenizer.stop_ids,
            dtype,
            num_slots,
            form=form,
            tokenizer=tokenizer,
            speculation=speculation,
            cache_bytes=cache_bytes,
            exact=exact,
        )
        self._numbers, self._jobs = count(), dict[int, _Job]()
        self.prompt_tokens = self.completion_tokens = 0
        self.seconds_to_first_token: float | None = None
        self.tokens_per_second: float | None = None
        self.finish_reason: FinishReason = "stop"

    def stream(
        self,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int | None = None,
        seed: int = 0,
        thinking: bool = True,
        deadline_seconds: float | None = None,
        **settings: Any,
    ) -> Iterator[tuple[Kind, str]]:
        """Pieces of the thought and of the answer as they are generated; the same seed gives the same answer.

        `max_tokens` is the most an answer may have, the context's end comes first where it is nearer. After
        `deadline_seconds` it ends with what there is of it. `settings` are those of `Sampling`. Raises InputError where
        the conversation already fills the context, and for settings that can't be meant.
        """
        prompt, sampling, parser = self._asked(messages, max_tokens, thinking, settings)
        request = Request(
            tuple(prompt), stream_key("session", seed), 1, sampling, deadline_seconds=deadline_seconds
        )
        return self._pieces(request, parser)

    def replies(
        self,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int | None = None,
        seed: int = 0,
        thinking: bool = True,
        num_samples: int = 1,
        best_of: int | None = None,
        deadline_seconds: float | None = None,
        **settings: Any,
    ) -> list[Reply]:
        """As `stream`, `num_samples` whole answers; of `best_of` drawn those of the highest mean log-probability."""
        prompt, sampling, parser = self._asked(messages, max_tokens, thinking, settings)
        request = Request(
            tuple(prompt), stream_key("session", seed), num_samples, sampling, best_of,
            deadline_seconds=deadline_seconds,
        )  # fmt: skip
        job = _Job()
        for _ in self.tokens(request, job):
            pass
        drawn = [job.completions[sample] for sample in range(request.num_drawn)]
        completions = pick_best(drawn, num_samples) if best_of else drawn
        self._time(job, len(prompt))
        self.completion_tokens = sum(len(completion.tokens) for completion in completions)
        self.finish_reason = completions[0].finish_reason
        return [reply_of(completion, self.tokenizer, parser.inside_thought) for completion in completions]

    def _asked(
        self,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int | None,
        thinking: bool,
        settings: Mapping[str, Any],
    ) -> tuple[list[int], Sampling, ThoughtParser]:
        """The prompt, how its answer is drawn, and what parts it."""
        prompt = self.tokenizer.encode_chat(messages, thinking=thinking)
        room = self.model.config.max_position_embeddings - len(prompt)
        if room < 1:
            raise InputError(
                f"the conversation ({len(prompt)} tokens) fills the model's context of "
                f"{self.model.config.max_position_embeddings} tokens; shorten it or start a new one"
            )
        opened = self.tokenizer.chat.render(messages, thinking=thinking).rstrip().endswith("<think>")
        held = max(self.engine.most_tokens - len(prompt), 1)  # none is the engine's to refuse
        most = min(room, max_tokens or room, held)
        return prompt, Sampling(**{**self.defaults, **settings, "max_tokens": most}), ThoughtParser(opened)

    def _pieces(self, request: Request, parser: ThoughtParser) -> Iterator[tuple[Kind, str]]:
        self.completion_tokens, self.finish_reason = 0, "cancelled"
        ending, job = Ending(request.sampling, self.tokenizer.stop_ids, self.tokenizer), _Job()
        for token in self.tokens(request, job):
            self.completion_tokens += 1
            yield from parser.feed(ending.feed(token))
            if ending.finish_reason is not None:
                break
        yield from parser.close()
        is_late = any(one.finish_reason == "deadline" for one in job.completions.values())
        self.finish_reason = ending.finish_reason or ("deadline" if is_late else "length")
        self._time(job, len(request.prompt))

    def _time(self, job: "_Job", prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.seconds_to_first_token, self.tokens_per_second = job.seconds_to_first, job.per_second

    def tokens(self, request: Request, job: "_Job") -> Iterator[int]:
        """Tokens of a request's samples as they are drawn; `job` then holds the completions.

        What an earlier conversation began with the same tokens is not read again. InputError where a constraint could
        not be obeyed.
        """
        number = next(self._numbers)
        answers = self.engine.submit(request, number)
        self._jobs[number] = job
        job.begun = monotonic()
        try:
            while job.said or any(map(self.engine.holds, answers)):
                if job.said:
                    yield job.said.popleft()
                else:
                    self._step()
        finally:
            for answer in answers:
                self.engine.cancel(answer)
            del self._jobs[number]
        for completion in job.completions.values():
            if completion.error is not None:
                raise InputError(completion.error)

    def _step(self) -> None:
        for answer, completion in self.engine.step(self._note):
            self._jobs[answer.index].completions[answer.sample] = completion

    def _note(self, number: int, sample: int, token: int) -> None:
        """A new token of one of the answers on their way, which somebody may ask for later."""
        self._jobs[number].note(token)


@dataclass
class _Job:
    """One request on its way: tokens that nobody has asked for yet, and when they came."""

    said: deque[int] = field(default_factory=deque)
    completions: dict[int, Completion] = field(default_factory=dict)  # by sample
    begun: float = 0.0
    first: float = 0.0
    latest: float = 0.0
    count: int = 0

    def note(self, token: int) -> None:
        """A new token."""
        self.said.append(token)
        self.latest = monotonic()
        self.first = self.first or self.latest
        self.count += 1

    @property
    def seconds_to_first(self) -> float | None:
        """Seconds until the first token; None: there is none."""
        return self.first - self.begun if self.count else None

    @property
    def per_second(self) -> float | None:
        """Tokens a second after the first one; None: there are none."""
        seconds = self.latest - self.first
        return (self.count - 1) / seconds if seconds else None
