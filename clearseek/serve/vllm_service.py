"""A vLLM server as whoever answers: token ids to it and from it, streamed, in the shape of `/v1/completions`.

Our own server speaks it too. Texts, stop strings and ends are made here, so answers are the same whoever computes them.
Left out on purpose: constraints, thinking budgets and log-probabilities of prompts, which are our engine's.
"""

import asyncio
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from clearseek.config.engine import Vllm
from clearseek.config.errors import InputError, RunError
from clearseek.engine.ending import Ending
from clearseek.engine.request import Alternatives, Completion, Request, Sampling
from clearseek.engine.vllm_server import CONNECT_SECONDS
from clearseek.serve.answering import Answering, Delta
from clearseek.serve.errors import ApiError
from clearseek.text.tokenizer import Tokenizer

_LOG = logging.getLogger(__name__)
_LONGEST_LINE = 1 << 24


class VllmService:
    """Answers with the vLLM server at `settings.url`, which has to serve the model of this `tokenizer`, as `model`."""

    is_lost = False  # it may come back

    def __init__(self, settings: Vllm, model: str, tokenizer: Tokenizer) -> None:
        self.settings, self.model, self.tokenizer = settings, model, tokenizer
        self._tasks = set[asyncio.Task[None]]()

    @property
    def num_running(self) -> int:
        """Requests that it was asked and has not answered; it has a queue of its own."""
        return len(self._tasks)

    @property
    def num_waiting(self) -> int:
        """None wait here."""
        return 0

    async def submit(self, request: Request) -> Answering:
        """Ask it. InputError for what it isn't asked, `ApiError` where it is not there or refuses."""
        _check(request)
        lines = await self._ask(_question(request, self.model, self.tokenizer))
        answering = Answering(request, lambda: _cancel(task), _cannot_answer_now)
        task = asyncio.create_task(self._read(lines, answering))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return answering

    def close(self, seconds: float) -> None:
        """Nothing is held."""

    async def _read(self, lines: AsyncIterator[bytes], answering: Answering) -> None:
        request = answering.request
        samples = [_Sample(number, request.sampling, self.tokenizer) for number in range(request.num_drawn)]
        try:
            async for line in lines:
                for delta in _deltas(line, samples):
                    answering.put(delta)
                if all(sample.is_over for sample in samples):
                    return
            raise RunError(f"vLLM at {self.settings.url} ended before its answer did")
        except asyncio.CancelledError:
            for sample in samples:
                if not sample.is_over:
                    answering.put(sample.cancelled())
            raise
        except (OSError, ValueError, KeyError, TypeError, RunError) as error:
            answering.fail(RunError(f"vLLM at {self.settings.url} did not answer as it should ({error})"))
        finally:
            await lines.aclose()  # type: ignore[attr-defined]  # it is a generator

    async def _ask(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        """The lines of its answer, once it has begun one."""
        lines = self._exchange(json.dumps(body).encode())
        try:
            first = await anext(lines)
        except (OSError, TimeoutError, StopAsyncIteration, asyncio.IncompleteReadError) as error:
            message = f"no vLLM answers at {self.settings.url} ({error or type(error).__name__})"
            raise ApiError(503, message, "service_unavailable", headers={"Retry-After": "10"}) from error
        status = int(first.split(b" ", 2)[1])
        if status != 200:
            said = b"".join([line async for line in lines]).decode("utf-8", "replace")
            raise ApiError(
                400 if status in (400, 422) else 503, f"vLLM refused (HTTP {status}): {said[:500]}"
            )
        return lines

    async def _exchange(self, body: bytes) -> AsyncIterator[bytes]:
        """The status line, then the body's lines. HTTP/1.0: it ends when the connection does."""
        parts = urlsplit(self.settings.url)
        secure = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if secure else 80)
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                parts.hostname, port, ssl=secure, limit=_LONGEST_LINE
            )
        try:
            key = os.environ.get("VLLM_API_KEY")
            head = [
                f"POST {parts.path}/v1/completions HTTP/1.0",
                f"Host: {parts.netloc}",
                "Connection: close",
            ]
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
            head += [f"Authorization: Bearer {key}"] if key else []
            writer.write(("\r\n".join(head) + "\r\n\r\n").encode() + body)
            is_head = True
            async with asyncio.timeout(self.settings.answer_timeout_seconds):
                while line := await reader.readline():
                    if not is_head or line.startswith(b"HTTP/"):
                        yield line
                    is_head = is_head and line != b"\r\n"
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


class _Sample:
    """One sample so far."""

    def __init__(self, number: int, sampling: Sampling, tokenizer: Tokenizer) -> None:
        self.number, self.ending = number, Ending(sampling, tokenizer.stop_ids, tokenizer)
        self.completion = Completion([], [], "cancelled", text="")

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.ending.finish_reason is not None

    def feed(self, tokens: list[int], log_probs: list[float], beside: list[Alternatives]) -> Delta:
        """New tokens, up to the one that ends it."""
        delta = Delta(self.number)
        for place, (token, log_prob) in enumerate(zip(tokens, log_probs, strict=True)):
            if self.is_over:
                break
            delta.tokens.append(token)
            delta.log_probs.append(log_prob)
            delta.alternatives += beside[place : place + 1]
            delta.text += self.ending.feed(token)
        self._take(delta)
        return delta

    def cancelled(self) -> Delta:
        """Its end where nobody wants more."""
        return Delta(self.number, completion=self.completion)

    def _take(self, delta: Delta) -> None:
        self.completion.tokens += delta.tokens
        self.completion.log_probs += delta.log_probs
        self.completion.text = (self.completion.text or "") + delta.text
        if self.ending.finish_reason is not None:
            self.completion.finish_reason = self.ending.finish_reason
            self.completion.stopped_by = self.ending.stopped_by
            delta.completion = self.completion


def _check(request: Request) -> None:
    ours = {
        "response_format, structured_outputs, required calls, strict tools": request.sampling.constraint,
        "a thinking budget or effort": request.sampling.thinking_budget,
        "log-probabilities of prompts": request.sampling.prompt_log_probs,
        "processed_logprobs": request.sampling.processed_log_probs or None,
        "timeout_seconds": request.deadline_seconds,
        "best_of": request.best_of,
    }
    asked = [name for name, value in ours.items() if value is not None]
    if asked:
        raise InputError(f"{asked[0]}: not with --engine vllm; clearseek's own engine has it")


def _question(request: Request, model: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """All settings are said, so that the server takes none from the model's generation_config.json."""
    sampling = request.sampling
    return {
        "model": model,
        "prompt": list(request.prompt),
        "n": request.num_samples,
        "seed": request.key >> 2,
        "max_tokens": sampling.max_tokens,
        "temperature": min(sampling.temperature, 2.0),
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": {str(token): value for token, value in sampling.logit_bias.items()} or None,
        "stop_token_ids": sorted(set() if sampling.ignore_eos else tokenizer.stop_ids),
        "ignore_eos": True,
        "logprobs": sampling.top_log_probs,
        "stream": True,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def _deltas(line: bytes, samples: list[_Sample]) -> list[Delta]:
    """What one line of the stream tells."""
    if not line.startswith(b"data: {"):
        return []
    said = json.loads(line[6:])
    if "error" in said:
        raise RunError(str(said["error"].get("message", said["error"]))[:300])
    deltas = []
    for choice in said["choices"]:
        sample, tokens = samples[choice["index"]], choice.get("token_ids") or []
        if tokens and not sample.is_over:
            told = choice["logprobs"]
            deltas.append(sample.feed(tokens, told["token_logprobs"], _alternatives(told, sample)))
    return deltas


def _alternatives(told: dict[str, Any], sample: _Sample) -> list[Alternatives]:
    found = []
    for likeliest in told["top_logprobs"] or []:
        pairs = sorted(
            ((value, int(name.removeprefix("token_id:"))) for name, value in (likeliest or {}).items()),
            reverse=True,
        )
        found.append(Alternatives(tuple(token for _, token in pairs), tuple(value for value, _ in pairs)))
    return found


def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()


def _cannot_answer_now() -> None:
    _LOG.info("vLLM can't be told to answer now")
