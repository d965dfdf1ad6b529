"""One model's speed in every format: a stream, 16 of them, reading a prompt, the first token; and the limits of each.

A first call warms up and tells how many tokens fit into a turn; a figure is the better of two turns.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.engine.bench.exact import exact_price
from clearseek.engine.bench.limits import DRAM_BYTES, bytes_per_token, read_bandwidth, square_peak
from clearseek.engine.bench.shapes import FORMATS, OUR_FORMATS, SHAPES
from clearseek.engine.bench.workloads import WORKLOADS, Workload
from clearseek.engine.engine import Engine
from clearseek.engine.mixed_formats import read_formats
from clearseek.engine.request import Request, Sampling
from clearseek.ledger.machine import describe_machine
from clearseek.model.decoder import Decoder
from clearseek.model.resolve import resolve_source
from clearseek.model.source import load_source

STANDING = ("dense-0.1b", "latent-moe-0.5b", "dense-0.6b")  # the quickest to make first
LEFT_OUT = "left out: time was up"
_TURN_SECONDS = 1.0
_TURNS = 2
Say = Callable[[str], None]


def bench_engine(
    model: str | None,
    formats: Sequence[str] = tuple(FORMATS),
    seconds: float = 55.0,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """This machine's limits and, by model and format, how fast the engine is on it; on the CPU. In bf16 also what exact
    mode costs a latent model in training.

    Without `model`, a path, the standing shapes with random weights, as many as fit into `seconds`. What time left out
    says so. InputError where there is no such model or format.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"{name!r} is no format that is measured; there are {', '.join(FORMATS)}")
    source = None if model is None else resolve_source(Path(model))
    end, names = time.monotonic() + seconds, STANDING if model is None else (model,)
    say("memory and products")
    result: dict[str, Any] = {"machine": machine(), "models": {}}
    for name in names:
        cells: dict[str, dict[str, Any]] = {}
        result["models"][name] = cells
        decoder: Decoder | None = None
        for form in formats:
            if time.monotonic() >= end:
                cells[form] = {"why": LEFT_OUT}
                continue
            say(f"{name} in {form}")
            if decoder is None:
                decoder = load_source(source, torch.bfloat16) if source is not None else _random(name)
            cells[form] = measure_speed(decoder, form)
            if form == "bf16" and (price := exact_price(decoder)) is not None:
                cells[form] |= {"exact_price": price}
    return result


def machine() -> dict[str, Any]:
    """What it is, and the best rates that memory and products reach on it."""
    about = describe_machine()
    free = about.get("memory_bytes") or DRAM_BYTES
    return {
        **about,
        "threads": torch.get_num_threads(),
        "read_bytes_per_second": read_bandwidth(min(DRAM_BYTES, free // 8)),
        "product_flops_per_second": {form: square_peak(form) for form in ("fp32", "bf16")},
    }


def measure_speed(model: Decoder, form: str) -> dict[str, Any]:
    """Figures of a model in a format; `why` alone where it can't be kept so."""
    dtype, kept = OUR_FORMATS[form]
    try:
        engine = Engine(model, (), getattr(torch, dtype), copies=False, form=read_formats(kept))
    except InputError as error:
        return {"why": str(error)}
    stream, one = stream_rate(engine)
    prefill, many = (fitting(WORKLOADS[name], model.config) for name in ("prefill_512", "streams_16"))
    many = replace(many, max_tokens=_share(many.max_tokens, one))
    seconds = {
        "streams_16": _best(engine, many),
        "prefill": _best(engine, prefill), "first_token": _best(engine, replace(stream, max_tokens=1)),
    }  # fmt: skip
    return {
        "plain": engine.why_plain,  # what keeps it from the kernels
        "one_stream": one,
        "streams_16": many.counted_tokens / seconds["streams_16"],
        "prefill": prefill.counted_tokens / seconds["prefill"],
        "seconds_to_first_token": seconds["first_token"],
        "prompt_tokens": {"first_token": stream.prompt_tokens, "prefill": prefill.prompt_tokens},
        **_beside_limit(model.config, form, stream, one),
    }


def stream_rate(engine: Engine) -> tuple[Workload, float]:
    """What one stream was asked, and its tokens a second."""
    stream = fitting(WORKLOADS["one_stream"], engine.model.config)
    rate = 8 / _best(engine, replace(stream, max_tokens=8), turns=1, warm_up=True)
    stream = replace(stream, max_tokens=_share(stream.max_tokens, rate))
    return stream, stream.counted_tokens / _best(engine, stream)


def fitting(workload: Workload, config: ModelConfig) -> Workload:
    """A workload no longer than a model's context."""
    context = config.max_position_embeddings
    prompt = min(workload.prompt_tokens, max(context // 2, 1))
    return replace(workload, prompt_tokens=prompt, max_tokens=min(workload.max_tokens, context - prompt))


def _beside_limit(config: ModelConfig, form: str, stream: Workload, rate: float) -> dict[str, float]:
    """How fast one stream reads what each token needs, beside the rate at which memory of that size can be read."""
    needed = bytes_per_token(config, form, stream.prompt_tokens + stream.max_tokens / 2)
    limit = read_bandwidth(int(needed))
    return {
        "bytes_per_token": needed,
        "bytes_per_second": needed * rate,
        "limit_bytes_per_second": limit,
        "share_of_limit": needed * rate / limit,
    }


def _share(most: int, rate: float) -> int:
    """Tokens that fit into a turn at a rate, from 8 on."""
    return min(max(int(rate * _TURN_SECONDS), 8), most)


def _best(engine: Engine, workload: Workload, turns: int = _TURNS, warm_up: bool = False) -> float:
    """Seconds of the best turn; each has prompts of its own, so that no cache knows them."""
    best = float("inf")
    for turn in range(turns + warm_up):
        prompts = workload.prompts(engine.model.config.vocab_size, seed=hash((workload, turn)))
        sampling = Sampling(workload.temperature, max_tokens=workload.max_tokens)
        requests = [Request(tuple(prompt), 0, sampling=sampling) for prompt in prompts]
        started = time.perf_counter()
        engine.generate(requests)
        if turn or not warm_up:
            best = min(best, time.perf_counter() - started)
    return best


def _random(name: str) -> Decoder:
    """A standing shape with random weights."""
    model = Decoder(SHAPES[name].config)
    model.initialise(torch.Generator().manual_seed(0))
    return model.bfloat16().eval()
