"""Counts of one model's answers: tokens, ends, and how long things took, in vLLM's buckets."""

from collections import Counter

from clearseek.serve.answering import Answering
from clearseek.serve.prometheus import Histogram

_SECONDS = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
)
_TOKEN_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    2.5,
)
_LONG_SECONDS = (
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    40.0,
    50.0,
    60.0,
    120.0,
    240.0,
    480.0,
)
_TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))
_SAMPLES = (1.0, 2.0, 5.0, 10.0, 20.0)
HISTOGRAMS = {
    "request_prompt_tokens": ("Tokens of an answer's prompt.", _TOKENS),
    "request_generation_tokens": ("Tokens of an answer.", _TOKENS),
    "request_params_n": ("Answers asked for at once.", _SAMPLES),
    "request_params_max_tokens": ("Tokens that an answer may have.", _TOKENS),
    "time_to_first_token_seconds": ("From asking to the first token.", _SECONDS),
    "inter_token_latency_seconds": ("Between two tokens of an answer.", _TOKEN_SECONDS),
    "request_time_per_output_token_seconds": ("Mean of an answer's tokens after the first.", _TOKEN_SECONDS),
    "e2e_request_latency_seconds": ("From asking to the end.", _LONG_SECONDS),
    "request_queue_time_seconds": ("Waiting for a seat.", _LONG_SECONDS),
    "request_prefill_time_seconds": ("From the seat to the first token.", _LONG_SECONDS),
    "request_inference_time_seconds": ("From the seat to the last token.", _LONG_SECONDS),
    "request_decode_time_seconds": ("From the first token to the last.", _LONG_SECONDS),
}


class Tally:
    """One model's counts of answers."""

    def __init__(self) -> None:
        self.prompt_tokens = self.generation_tokens = 0
        self.ended: Counter[str] = Counter()  # by finish reason
        self.histograms = {name: Histogram(bounds) for name, (_, bounds) in HISTOGRAMS.items()}

    def begin(self, answering: Answering) -> None:
        """An answer was asked for; it will be noted as it comes."""
        request = answering.request
        self.prompt_tokens += len(request.prompt)
        self.histograms["request_params_n"].observe(request.num_samples)
        self.histograms["request_params_max_tokens"].observe(request.sampling.max_tokens)
        answering.observe(self)

    def note_tokens(self, answering: Answering, count: int, seconds: float | None) -> None:
        """New tokens of a sample, each `seconds` after the one before; None: they are its first."""
        self.generation_tokens += count
        if seconds is not None:
            self.histograms["inter_token_latency_seconds"].observe(seconds, count)
        elif answering.seconds_to_first is not None:
            self.histograms["time_to_first_token_seconds"].observe(answering.seconds_to_first)

    def note_end(self, answering: Answering, reason: str, count: int, now: float) -> None:
        """A sample has ended after `count` tokens."""
        self.ended[{"cancelled": "abort", "deadline": "length"}.get(reason, reason)] += 1
        self.histograms["request_prompt_tokens"].observe(len(answering.request.prompt))
        self.histograms["request_generation_tokens"].observe(count)
        first, seated = answering.first_at, answering.seated_at or answering.begun_at
        times = {"e2e_request_latency_seconds": now - answering.begun_at}
        times["request_queue_time_seconds"] = seated - answering.begun_at
        if first is not None:
            times["request_prefill_time_seconds"] = first - seated
            times["request_decode_time_seconds"] = now - first
            times["request_inference_time_seconds"] = now - seated
            if count > 1:
                times["request_time_per_output_token_seconds"] = (now - first) / (count - 1)
        for name, seconds in times.items():
            self.histograms[name].observe(max(seconds, 0.0))
