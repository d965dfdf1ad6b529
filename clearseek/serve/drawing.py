"""Fields of a request that say how tokens are drawn, as settings of the engine's `Sampling`."""

from collections.abc import Mapping
from typing import Any

from clearseek.serve.errors import ApiError
from clearseek.serve.openai_chat_types import Drawing
from clearseek.serve.served_model import ServedModel


def settings_of(body: Drawing, has_log_probs: bool) -> dict[str, Any]:
    """What was asked, by the engine's names; None where the model's own holds. `ApiError` for what can't be meant.

    `has_log_probs`: tokens are told with their log-probabilities, which more can stand beside.
    """
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options: only a stream has them; set stream", param="stream_options")
    if body.processed_logprobs and not has_log_probs:
        raise ApiError(400, "processed_logprobs: it needs logprobs", param="processed_logprobs")
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if len(stop) > 16:
        raise ApiError(400, f"stop: {len(stop)} texts; it may have 16", param="stop")
    return {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": None if body.top_k is None else max(body.top_k, 0),
        "min_p": body.min_p,
        "frequency_penalty": body.frequency_penalty,
        "presence_penalty": body.presence_penalty,
        "repetition_penalty": body.repetition_penalty,
        "logit_bias": _bias(body.logit_bias),
        "ignore_eos": body.ignore_eos,
        "processed_log_probs": body.processed_logprobs,
        "stop": tuple(text for text in stop if text) or None,
        "stop_ids": tuple(body.stop_token_ids or ()) or None,
    }


def client_of(body: Drawing, key_owner: str) -> str:
    """In whose turn a request is served: the key's owner's, and of several users of one key each in theirs."""
    return "/".join(filter(None, (key_owner, body.user_id or body.user)))


def model_name(body: Drawing, model: ServedModel) -> str:
    """What an answer calls its model: as it was asked for."""
    return body.model or model.name


def _bias(asked: Mapping[str, float] | None) -> dict[int, float] | None:
    if asked is None:
        return None
    try:
        return {int(token): value for token, value in asked.items()}
    except ValueError:
        raise ApiError(400, "logit_bias: its keys have to be token ids", param="logit_bias") from None
