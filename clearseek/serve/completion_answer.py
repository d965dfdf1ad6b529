"""The JSON of `/v1/completions`: texts of all prompts' samples, whole or in chunks as they come."""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from clearseek.engine.best_of import pick_best
from clearseek.engine.request import Alternatives, Completion, Draw
from clearseek.serve.answering import Answering, Delta
from clearseek.serve.chat_answer import FINGERPRINT
from clearseek.serve.completion_types import CompletionRequest
from clearseek.serve.errors import of_completion
from clearseek.serve.log_prob_records import Records
from clearseek.serve.merging import merged
from clearseek.serve.streaming import DONE, event
from clearseek.text.tokenizer import Tokenizer

_REASONS = {"cancelled": "stop"}


@dataclass
class CompletionAnswer:
    """One answer to all prompts; choice `i` of prompt `p` has the index `p * n + i`."""

    model: str
    body: CompletionRequest
    answerings: list[Answering]
    tokenizer: Tokenizer
    is_deepseek: bool

    def __post_init__(self) -> None:
        self._records = Records(self.tokenizer, bool(self.body.return_tokens_as_token_ids))
        self._offsets: dict[int, int] = {}
        self.completion_tokens = 0
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }

    def cancel(self) -> None:
        """End all of it."""
        for answering in self.answerings:
            answering.cancel()

    async def events(self) -> AsyncIterator[bytes]:
        """Chunks of all choices as they come, and `[DONE]`."""
        options = self.body.stream_options
        tells = options is not None and options.include_usage
        left, echoed = len(self.answerings) * self.body.n, set[int]()
        async for prompt, delta in merged(self.answerings):
            index = prompt * self.body.n + delta.sample
            if self.body.echo and index not in echoed:
                echoed.add(index)
                yield self._chunk([self._echo(prompt, index)], tells)
            self.completion_tokens += len(delta.tokens)
            left -= delta.completion is not None
            is_last = {"usage": self.usage()} if self.is_deepseek and not left else {}
            yield self._chunk([self._choice(index, delta)], tells, is_last)
        if tells and not self.is_deepseek:
            yield self._chunk([], False, {"usage": self.usage()})
        yield DONE

    async def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        drawn: dict[tuple[int, int], Delta] = {}
        async for prompt, delta in merged(self.answerings):
            self.completion_tokens += len(delta.tokens)
            known = drawn.get((prompt, delta.sample))
            if known is None:
                drawn[prompt, delta.sample] = delta
            else:
                known.merge(delta)
        choices = []
        for prompt in range(len(self.answerings)):
            samples = [
                delta for (of, _), delta in sorted(drawn.items(), key=lambda item: item[0]) if of == prompt
            ]
            for number, delta in enumerate(self._picked(samples)):
                index = prompt * self.body.n + number
                echo = self._echo(prompt, index, delta.completion) if self.body.echo else None
                choices.append(_joined(echo, self._choice(index, delta)))
        return {**self._head, "choices": choices, "usage": self.usage()}

    def usage(self) -> dict[str, Any]:
        """Tokens of all prompts and answers."""
        prompt = sum(len(one.request.prompt) for one in self.answerings)
        hit = sum(one.cached_tokens for one in self.answerings)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": hit},
            "prompt_cache_hit_tokens": hit,
            "prompt_cache_miss_tokens": prompt - hit,
        }

    def _picked(self, samples: list[Delta]) -> list[Delta]:
        if self.body.best_of is None:
            return samples
        by_completion = {id(delta.completion): delta for delta in samples}
        completions = [delta.completion for delta in samples if delta.completion is not None]
        return [by_completion[id(one)] for one in pick_best(completions, self.body.n)]

    def _chunk(self, choices: list[dict[str, Any]], tells: bool, more: dict[str, Any] | None = None) -> bytes:
        return event({**self._head, "choices": choices, **({"usage": None} if tells else {}), **(more or {})})

    def _choice(self, index: int, delta: Delta) -> dict[str, Any]:
        reason = None
        if delta.completion is not None:
            if delta.completion.error is not None:
                raise of_completion(delta.completion)
            reason = _REASONS.get(delta.completion.finish_reason, delta.completion.finish_reason)
        told = self._log_probs(index, delta.tokens, list(delta.log_probs), delta.alternatives, delta.draws)
        ids = {"token_ids": delta.tokens} if self.body.return_token_ids else {}
        return {"index": index, "text": delta.text, "logprobs": told, "finish_reason": reason, **ids}

    def _echo(self, prompt: int, index: int, completion: Completion | None = None) -> dict[str, Any]:
        tokens = list(self.answerings[prompt].request.prompt)
        text = self.tokenizer.decode(tokens, skip_special=True)
        told = None
        if completion is not None and completion.prompt_log_probs is not None:
            beside = [one or Alternatives((), ()) for one in completion.prompt_alternatives]
            told = self._log_probs(index, tokens, completion.prompt_log_probs, beside, [None] * len(tokens))
        return {"index": index, "text": text, "logprobs": told, "finish_reason": None}

    def _log_probs(
        self,
        index: int,
        tokens: list[int],
        log_probs: list[float | None],
        beside: list[Alternatives],
        draws: Sequence[Draw | None],
    ) -> dict[str, Any] | None:
        """OpenAI's older form: lists beside one another."""
        if self.body.logprobs is None:
            return None
        texts = [self._records.text(token) for token in tokens]
        offsets, at = [], self._offsets.get(index, 0)
        for token in tokens:
            offsets.append(at)
            at += len(self.tokenizer.decode([token], skip_special=True))  # those are none of the text
        self._offsets[index] = at
        likeliest = [
            {self._records.text(token): value for token, value in zip(one.tokens, one.log_probs, strict=True)}
            for one in beside or [Alternatives((), ())] * len(tokens)
        ]
        return {
            "tokens": texts,
            "token_logprobs": log_probs,
            "top_logprobs": likeliest,
            "text_offset": offsets,
            **(_drawn(draws) if self.body.processed_logprobs else {}),
        }


def _drawn(draws: Sequence[Draw | None]) -> dict[str, Any]:
    """Lists beside the others; a prompt's tokens were not drawn."""
    return {
        "raw_token_logprobs": [draw and draw.raw_log_prob for draw in draws],
        "processed_token_logprobs": [draw and draw.processed_log_prob for draw in draws],
        "kept_mass": [draw and draw.kept_mass for draw in draws],
    }


def _joined(echo: dict[str, Any] | None, choice: dict[str, Any]) -> dict[str, Any]:
    """A prompt and what followed, as one choice."""
    if echo is None:
        return choice
    told, said = echo["logprobs"], choice["logprobs"]
    joined = None if said is None else {name: told[name] + said[name] for name in said}
    return {**choice, "text": echo["text"] + choice["text"], "logprobs": joined}
