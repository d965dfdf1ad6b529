"""What `/v1/completions` asks of the engine: a request for each prompt."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clearseek.engine.constraint import Constraint
from clearseek.engine.request import Request
from clearseek.serve.completion_types import CompletionRequest
from clearseek.serve.drawing import client_of, settings_of
from clearseek.serve.errors import ApiError
from clearseek.serve.served_model import ServedModel
from clearseek.serve.structured import constraint_of
from clearseek.text.tokenizer import Tokenizer

_DEFAULT_TOKENS = 16  # OpenAI's
_MOST_PROMPTS = 128
# tokens that stand before a text, for its hole and behind it, by family
_FILLING = (
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
)


def requests_of(model: ServedModel, body: CompletionRequest, key_owner: str) -> list[Request]:
    """One for each prompt. InputError and `ApiError` for what is wrong."""
    settings = settings_of(body, body.logprobs is not None)
    if body.best_of is not None and (body.stream or body.best_of < body.n):
        raise ApiError(400, "best_of: at least n, and not in a stream", param="best_of")
    if body.echo and body.stream and body.logprobs is not None:
        why = "those of an echoed prompt are known at the end; leave out stream, echo or logprobs"
        raise ApiError(400, f"logprobs: {why}", param="logprobs")
    if body.echo and body.suffix is not None:
        raise ApiError(400, "echo: a text with a suffix can't be echoed", param="echo")
    asked = []
    for prompt in _prompts(model, body):
        request = model.request(
            prompt,
            body.max_tokens or _DEFAULT_TOKENS,
            body.seed,
            body.n,
            client_of(body, key_owner),
            body.timeout_seconds,
            top_log_probs=body.logprobs or None,
            prompt_log_probs=body.logprobs if body.echo else None,
            constraint=_constraint(model, body, prompt),
            **settings,
        )
        asked.append(replace(request, best_of=body.best_of))
    return asked


def _constraint(model: ServedModel, body: CompletionRequest, prompt: list[int]) -> Constraint | None:
    """What the text has to look like; where the prompt has opened a thought, what follows that."""
    wanted = body.structured_outputs
    return None if wanted is None else constraint_of(wanted, model.opens_thought(prompt))


def _prompts(model: ServedModel, body: CompletionRequest) -> list[list[int]]:
    given: Any = body.prompt
    is_one = isinstance(given, str) or not given or isinstance(given[0], int)
    several: Sequence[str | list[int]] = [given] if is_one else given
    if len(several) > _MOST_PROMPTS:
        raise ApiError(
            400, f"prompt: {len(several)} of them; {_MOST_PROMPTS} may be asked at once", param="prompt"
        )
    return [_tokens(model.tokenizer, prompt, body.suffix) for prompt in several]


def _tokens(tokenizer: Tokenizer, prompt: str | list[int], suffix: str | None) -> list[int]:
    if suffix is not None:
        if not isinstance(prompt, str):
            raise ApiError(400, "suffix: the prompt has to be a text", param="suffix")
        return _with_hole(tokenizer, prompt, suffix)
    if not isinstance(prompt, str):
        return list(prompt)
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    text = "" if prompt == "<|endoftext|>" else prompt  # OpenAI's word for none
    return begin + tokenizer.encode_plain(text) or [tokenizer.eos_id]


def _with_hole(tokenizer: Tokenizer, before: str, after: str) -> list[int]:
    """A text with a hole, as models learn to fill it (prefix, suffix, middle)."""
    for names in _FILLING:
        ids = [tokenizer.token_id(name) for name in names]
        begin, hole, end = ids
        if begin is not None and hole is not None and end is not None:
            start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
            texts = tokenizer.encode_plain(before), tokenizer.encode_plain(after)
            return [*start, begin, *texts[0], hole, *texts[1], end]
    raise ApiError(400, "suffix: this model has no tokens for filling in the middle", param="suffix")
