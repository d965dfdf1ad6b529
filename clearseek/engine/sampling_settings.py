"""Whether a request's settings can be meant: each in its range, and none against another."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from numbers import Real
from typing import Any

from clearseek.config.errors import InputError
from clearseek.engine.constraint import Constraint
from clearseek.engine.request import Request, Sampling

_COLDEST = 1e-4  # below, scores over it could leave fp32; 0 takes the likeliest token
_MOST_STOPS, _LONGEST_STOP = 32, 512
_MOST_STOP_IDS = 128
_MOST_LOG_PROBS = 128
_MOST_SAMPLES = 65_536

_RANGES: dict[str, tuple[float, float, str]] = {  # smallest, largest, in words
    "top_p": (math.ulp(0.0), 1.0, "above 0 and at most 1"),
    "min_p": (0.0, 1.0, "from 0 to 1"),
    "repetition_penalty": (math.ulp(0.0), 100.0, "above 0 and at most 100; 1 changes nothing"),
    "frequency_penalty": (-2.0, 2.0, "from -2 to 2"),
    "presence_penalty": (-2.0, 2.0, "from -2 to 2"),
}


def check_request(request: Request, vocab_size: int, with_sampling: bool = True) -> None:
    """Raise InputError for the first setting that is wrong: its name, its value, and what is right.

    The prompt's length against the context is the engine's to check, and its ids are checked here; `with_sampling`
    False: its sampling was checked before.
    """
    _whole("num_samples (n)", request.num_samples, 1, _MOST_SAMPLES)
    if request.best_of is not None:
        _whole("best_of", request.best_of, 1, _MOST_SAMPLES)
        if request.best_of < request.num_samples:
            raise _wrong("best_of", request.best_of, f"at least n, which is {request.num_samples}")
        if request.best_of > request.num_samples and request.sampling.temperature == 0:
            raise _wrong(
                "best_of", request.best_of, "n where the temperature is 0: every draw would be the same"
            )
    if (seconds := request.deadline_seconds) is not None and not (_is_number(seconds) and seconds > 0):
        raise _wrong("deadline_seconds", seconds, "a number of seconds above 0, or None")
    _known_ids("the prompt", request.prompt, vocab_size)
    if with_sampling:
        check_sampling(request.sampling, vocab_size)


def check_sampling(sampling: Sampling, vocab_size: int) -> None:
    """As `check_request`, for the settings alone."""
    _check_temperature(sampling.temperature)
    for name, (smallest, largest, wanted) in _RANGES.items():
        value = getattr(sampling, name)
        if not _is_number(value) or not smallest <= value <= largest:
            raise _wrong(name, value, wanted)
    _whole("max_tokens", sampling.max_tokens, 1, None)
    _whole("top_k", sampling.top_k, 0, None, "; 0 keeps all")
    _whole("top_log_probs", sampling.top_log_probs, 0, _MOST_LOG_PROBS)
    if sampling.prompt_log_probs is not None:
        _whole("prompt_log_probs", sampling.prompt_log_probs, 0, _MOST_LOG_PROBS)
    for name in ("processed_log_probs", "routed_experts"):
        if not isinstance(getattr(sampling, name), bool):
            raise _wrong(name, getattr(sampling, name), "True or False")
    _check_bias(sampling.logit_bias, vocab_size)
    _check_stops(sampling, vocab_size)
    _check_thought(sampling)
    _check_constraint(sampling)


def _check_temperature(value: Any) -> None:
    if not _is_number(value) or not (value == 0 or _COLDEST <= value < math.inf):
        raise _wrong("temperature", value, f"0 (the likeliest token) or a number of at least {_COLDEST:g}")


def _check_bias(bias: Any, vocab_size: int) -> None:
    if not isinstance(bias, Mapping):
        raise _wrong("logit_bias", bias, "a mapping from token ids to numbers")
    _known_ids("logit_bias", bias, vocab_size)
    for token, value in bias.items():
        if not _is_number(value) or not -100 <= value <= 100:
            raise _wrong(f"logit_bias[{token}]", value, "from -100 to 100")


def _check_stops(sampling: Sampling, vocab_size: int) -> None:
    if isinstance(sampling.stop, str):
        raise _wrong("stop", sampling.stop, "a list of texts")
    _at_most("stop", len(sampling.stop), _MOST_STOPS, "texts")
    for text in sampling.stop:
        if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_STOP:
            raise _wrong("stop", text, f"texts of 1 to {_LONGEST_STOP} characters")
    _at_most("stop_ids", len(sampling.stop_ids), _MOST_STOP_IDS, "tokens")
    _known_ids("stop_ids", sampling.stop_ids, vocab_size)


def _check_thought(sampling: Sampling) -> None:
    budget = sampling.thinking_budget
    if budget is None:
        return
    _whole("thinking_budget", budget, 0, None)
    if budget >= sampling.max_tokens:
        raise _wrong("thinking_budget", budget, f"less than max_tokens, which is {sampling.max_tokens}")


def _check_constraint(sampling: Sampling) -> None:
    if sampling.constraint is None:
        return
    if not isinstance(sampling.constraint, Constraint):
        raise _wrong(
            "constraint", sampling.constraint, "made by json_schema, regex, lark, choice or json_object"
        )
    if sampling.ignore_eos:
        raise InputError(
            "ignore_eos and constraint contradict: what a constraint allows ends with the end token"
        )
    if sampling.thinking_budget is not None and not sampling.constraint.thinks_first:
        raise InputError(
            "thinking_budget and a constraint with thinks_first=False contradict: there is no thought to bound"
        )


def _known_ids(name: str, tokens: Collection[Any], vocab_size: int) -> None:
    if tokens and set(map(type, tokens)) == {int} and min(tokens) >= 0 and max(tokens) < vocab_size:
        return
    for token in _not_known(tokens, vocab_size):
        raise InputError(
            f"{name} names token {token!r}; token ids are whole numbers from 0 to {vocab_size - 1}"
        )


def _not_known(tokens: Iterable[Any], vocab_size: int) -> Iterator[Any]:
    return (token for token in tokens if not _is_whole(token) or not 0 <= token < vocab_size)


def _whole(name: str, value: Any, smallest: int, largest: int | None, note: str = "") -> None:
    if not _is_whole(value) or value < smallest or (largest is not None and value > largest):
        upper = "" if largest is None else f" and at most {largest}"
        raise _wrong(name, value, f"a whole number of at least {smallest}{upper}{note}")


def _at_most(name: str, count: int, most: int, what: str) -> None:
    if count > most:
        raise InputError(f"{name} lists {count} {what}; there may be at most {most}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(name: str, value: Any, wanted: str) -> InputError:
    shown = repr(value)
    return InputError(f"{name} is {shown if len(shown) <= 60 else shown[:60] + '…'}; it has to be {wanted}")
