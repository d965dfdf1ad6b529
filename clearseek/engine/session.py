"""One conversation partner: a model directory opened for talking, whose answers arrive token by token."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import torch

from clearseek.config.errors import InputError
from clearseek.engine.engine import Engine
from clearseek.engine.request import FinishReason, Request, Sampling
from clearseek.engine.streams import stream_key
from clearseek.model.decoder import Decoder
from clearseek.model.device import choose_device
from clearseek.model.source import load_source, resolve_source, tokenizer_directory
from clearseek.text.incremental import IncrementalDecoder
from clearseek.text.thoughts import Kind, ThoughtParser
from clearseek.text.tokenizer import Tokenizer

_TOP_P = 0.95


def open_session(model: str, device: str = "auto") -> "Session":
    """Open a run, one of its checkpoints, a Hugging Face directory or a GGUF file for talking.

    Raises InputError where there is no such model or device, or where its tokenizer does not belong to it.
    """
    directory = resolve_source(Path(model))
    choice = choose_device(device)
    with tokenizer_directory(directory) as files:
        tokenizer = Tokenizer.load(files)
    decoder = load_source(directory, device=choice.device)
    tokenizer.require_room(decoder.config.vocab_size, directory)
    return Session(decoder, tokenizer, choice.dtype)


class Session:
    """A loaded model and its tokenizer. `completion_tokens` and `finish_reason` tell of the last answer."""

    def __init__(self, model: Decoder, tokenizer: Tokenizer, dtype: torch.dtype) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.engine = Engine(model, tokenizer.stop_ids, dtype, num_slots=1, tokenizer=tokenizer)
        self._numbers, self._said = count(), dict[int, deque[int]]()
        self.completion_tokens = 0
        self.finish_reason: FinishReason = "stop"

    def stream(
        self,
        messages: Sequence[Mapping[str, str]],
        temperature: float = 0.6,
        max_tokens: int | None = None,
        seed: int = 0,
        thinking: bool = True,
    ) -> Iterator[tuple[Kind, str]]:
        """Pieces of the thought and of the answer as they are generated; the same seed gives the same answer.

        `max_tokens` is the most an answer may have, the context's end comes first where it is nearer. Raises
        InputError where the conversation already fills the context.
        """
        prompt = self.tokenizer.encode_chat(messages, thinking=thinking)
        room = self.model.config.max_position_embeddings - len(prompt)
        if room < 1:
            raise InputError(
                f"the conversation ({len(prompt)} tokens) fills the model's context of "
                f"{self.model.config.max_position_embeddings} tokens; shorten it or start a new one"
            )
        opened = self.tokenizer.chat.render(messages, thinking=thinking).rstrip().endswith("<think>")
        held = max(self.engine.most_tokens - len(prompt), 1)  # none is the engine's to refuse
        sampling = Sampling(temperature, _TOP_P, min(room, max_tokens or room, held))
        return self._pieces(prompt, stream_key("session", seed), sampling, ThoughtParser(opened))

    def _pieces(
        self, prompt: Sequence[int], key: int, sampling: Sampling, parser: ThoughtParser
    ) -> Iterator[tuple[Kind, str]]:
        self.completion_tokens, self.finish_reason = 0, "cancelled"
        text = IncrementalDecoder(self.tokenizer)
        reason: FinishReason = "length"
        for token in self.tokens(prompt, key, sampling):
            self.completion_tokens += 1
            if token in self.tokenizer.stop_ids:
                reason = "stop"
                break
            yield from parser.feed(text.feed(token))
        yield from parser.feed(text.close())
        yield from parser.close()
        self.finish_reason = reason

    def tokens(self, prompt: Sequence[int], key: int, sampling: Sampling) -> Iterator[int]:
        """Sample up to `max_tokens` tokens after `prompt`, from the stream that `key` addresses.

        What an earlier conversation began with the same tokens is not read again.
        """
        number = next(self._numbers)
        said = self._said[number] = deque()
        (answer,) = self.engine.submit(Request(tuple(prompt), key, 1, sampling), number)
        try:
            while said or self.engine.holds(answer):
                if said:
                    yield said.popleft()
                else:
                    self.engine.step(self._note)
        finally:
            self.engine.cancel(answer)
            del self._said[number]

    def _note(self, number: int, sample: int, token: int) -> None:
        """A new token of one of the answers on their way, which somebody may ask for later."""
        self._said[number].append(token)
