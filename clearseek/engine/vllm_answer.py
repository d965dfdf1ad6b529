"""What vLLM is asked for a request's completions, in the shape of OpenAI's `/v1/completions`, and what it answers."""

import math
from collections.abc import Collection, Sequence
from typing import Any

from clearseek.config.errors import RunError
from clearseek.engine.request import Completion, FinishReason, Request


def question(request: Request, stop_ids: Collection[int]) -> dict[str, Any]:
    """The body; whatever the server could take from a model's generation_config.json is said."""
    sampling = request.sampling
    return {
        "prompt": list(request.prompt),
        "n": _num_asked(request),
        "seed": request.key >> 2,  # sample i has seed + i, within 63 bits
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": sorted(stop_ids),
        "ignore_eos": True,  # those alone end a completion
        "logprobs": 0,  # of the drawn token
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def completions_of(answer: Any, request: Request, stop_ids: Collection[int]) -> list[Completion]:
    """The samples of a request; RunError where the answer can't be one to it."""
    try:
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        completions = [_completion(choice) for choice in choices]
    except (KeyError, TypeError, ValueError) as error:
        raise _strange(error) from error
    asked = _num_asked(request)
    if len(completions) != asked:
        raise RunError(f"vLLM gave {len(completions)} of {asked} completions")
    for one in completions:
        if (one.finish_reason == "stop") != (one.tokens[-1] in stop_ids):
            raise RunError(
                f"vLLM ended a completion ({one.finish_reason}) with token {one.tokens[-1]}; the model's ends are "
                f"{sorted(stop_ids)}"
            )
    return completions * (request.num_samples // asked)


def prompt_log_probs(answer: Any, tokens: Sequence[int]) -> list[float]:
    """Log-probabilities of a prompt's tokens, the first left out, where `prompt_logprobs` was asked for."""
    try:
        scored = answer["choices"][0]["prompt_logprobs"][1:]
        return [float(one[str(token)]["logprob"]) for one, token in zip(scored, tokens[1:], strict=True)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _strange(error) from error


def _num_asked(request: Request) -> int:
    """At temperature 0 all samples are one, and vLLM refuses to be asked for more."""
    return request.num_samples if request.sampling.temperature else 1


def _completion(choice: dict[str, Any]) -> Completion:
    """One sample; ValueError where it can't be.

    The mean of −log p over sampled tokens is the estimate of their entropy that needs no other token's.
    """
    tokens, log_probs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
    reason: FinishReason = choice["finish_reason"]
    if reason not in ("stop", "length"):
        raise ValueError(f"finish_reason {reason}")
    if not tokens or len(tokens) != len(log_probs) or not all(map(math.isfinite, log_probs)):
        raise ValueError(f"{len(tokens)} tokens, log-probabilities {log_probs[:8]}")
    return Completion(tokens, log_probs, reason, -sum(log_probs) / len(log_probs))


def _strange(error: Exception) -> RunError:
    return RunError(f"vLLM does not answer as version 0.32 does ({error!r}); update it")
