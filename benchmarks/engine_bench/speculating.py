"""The engine with the model's multi-token module beside itself without, at an acceptance that is set.

Random weights guess nothing right. So the module computes all that it does for its guesses, and then they are put
in the place of what it found: the token that comes next with the acceptance asked for, else another one.
"""

import random
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import clearseek
from clearseek.engine.bench.shapes import OUR_FORMATS, SHAPES, saved
from clearseek.engine.bench.workloads import WORKLOADS, Workload
from clearseek.engine.drafters import MtpDrafter
from clearseek.engine.engine import Engine
from clearseek.engine.mixed_formats import read_formats
from clearseek.engine.request import Request, Sampling
from clearseek.engine.speculation import Speculation

ACCEPTANCE = 0.8


def set_guesses(engine: Engine, truth: list[int], draw: random.Random) -> None:
    """Put other guesses into the place of the module's: of each token the true one with the acceptance asked for."""
    assert isinstance(engine.drafter, MtpDrafter)
    room = np.zeros_like(engine.slots.tokens)
    for place, true in enumerate(truth):
        is_right = draw.random() < ACCEPTANCE
        room[:, place] = true if is_right else (true + 1) % 256
    engine.drafter.guessing.instead = room


def measure_speculation(
    shape: str, form: str, rounds: int, folder: Path, num_tokens: int = 2
) -> dict[str, Any]:
    """One stream's tokens per second without and with the module, medians of turns in alternation, and their ratio."""
    config = SHAPES[shape].config.model_copy(update={"num_mtp_layers": 1})
    dtype, kept = OUR_FORMATS[form]
    model = clearseek.load(saved(config, folder), dtype)

    def engine(speculation: Speculation | None) -> Engine:
        return Engine(
            model.decoder, (), model.dtype, copies=False, form=read_formats(kept), speculation=speculation
        )

    plain, guessing = engine(None), engine(Speculation("mtp", num_tokens))
    workload = WORKLOADS["one_stream"]
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    draw = random.Random(0)
    for number in range(1 + rounds):
        request = _request(workload, config.vocab_size, number)
        started = time.perf_counter()
        truth = plain.generate([request])[0][0].tokens
        seconds["without"].append(time.perf_counter() - started)
        seconds["with"].append(_guess(guessing, request, truth, draw))
    rates = {name: workload.max_tokens / statistics.median(turns[1:]) for name, turns in seconds.items()}
    return {
        "tokens_per_second": rates["with"],
        "tokens_per_second_without": rates["without"],
        "ratio": rates["with"] / rates["without"],
        "num_tokens": num_tokens,
        "acceptance": guessing.acceptance.rates,
        "turns": {name: [round(turn, 4) for turn in turns[1:]] for name, turns in seconds.items()},
    }


def _request(workload: Workload, vocab_size: int, number: int) -> Request:
    (prompt,) = workload.prompts(vocab_size, seed=number)
    return Request(tuple(prompt), number, 1, Sampling(workload.temperature, 1.0, workload.max_tokens))


def _guess(engine: Engine, request: Request, truth: list[int], draw: random.Random) -> float:
    """Seconds of the same request with guesses; the completion has to be the same."""
    started = time.perf_counter()
    engine.submit(request)
    set_guesses(engine, truth, draw)
    finished = []
    while not engine.is_idle:
        finished += engine.step()
    taken = time.perf_counter() - started
    (completion,) = (item for _, item in finished)
    if completion.tokens != truth:
        raise AssertionError("speculation changed a completion")
    return taken


def main() -> None:
    """Measure the latent shape in every format and print the records."""
    import json
    import sys

    torch.set_num_threads(2)
    forms = sys.argv[1].split(",") if len(sys.argv) > 1 else list(OUR_FORMATS)
    for form in forms:
        for num_tokens in (1, 2, 3):
            record = measure_speculation("latent-moe-0.5b", form, 3, Path("runs/bench-engine"), num_tokens)
            print(form, num_tokens, json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
