"""The engine with the model's multi-token module beside itself without, at an acceptance that is set.

Random weights guess nothing right. So the module computes all that it does for its guesses, and then they are put
in the place of what it found: the token that comes next with the acceptance asked for, else another one.
"""

import random
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import clearseek
from clearseek.engine.bench.shapes import OUR_FORMATS, SHAPES, saved
from clearseek.engine.bench.workloads import WORKLOADS, Workload
from clearseek.engine.drafters import Guesses, MtpDrafter
from clearseek.engine.engine import Engine
from clearseek.engine.formats import Format
from clearseek.engine.request import Request, Sampling
from clearseek.engine.slots import Slots
from clearseek.engine.speculation import Speculation

ACCEPTANCE = 0.8


class SetAcceptance(MtpDrafter):
    """Guesses as its base does, then replaces each guess; `truth` are the completion's tokens."""

    def __init__(self, inner: MtpDrafter, acceptance: float) -> None:
        super().__init__(inner.runner)
        self.truth: list[int] = []
        self._acceptance, self._draw = acceptance, random.Random(0)

    def propose(self, slots: Slots, most: Mapping[int, int]) -> Guesses:
        """Guesses for active slots, at most so many for each."""
        guesses = super().propose(slots, most)
        for slot, tokens in guesses.items():
            done = int(slots.num_sampled[slot])
            for place, true in enumerate(self.truth[done : done + len(tokens)]):
                is_right = self._draw.random() < self._acceptance
                tokens[place] = true if is_right else (true + 1) % 256
        return guesses


def measure_speculation(
    shape: str, form: str, rounds: int, folder: Path, num_tokens: int = 2
) -> dict[str, Any]:
    """One stream's tokens per second without and with the module, medians of turns in alternation, and their ratio."""
    config = SHAPES[shape].config.model_copy(update={"num_mtp_layers": 1})
    dtype, kept = OUR_FORMATS[form]
    model = clearseek.load(saved(config, folder), dtype)

    def engine(speculation: Speculation | None) -> Engine:
        return Engine(
            model.decoder, (), model.dtype, copies=False, form=Format(kept), speculation=speculation
        )

    plain, guessing = engine(None), engine(Speculation("mtp", num_tokens))
    workload = WORKLOADS["one_stream"]
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for number in range(1 + rounds):
        request = _request(workload, config.vocab_size, number)
        started = time.perf_counter()
        truth = plain.generate([request])[0][0].tokens
        seconds["without"].append(time.perf_counter() - started)
        seconds["with"].append(_guess(guessing, request, truth))
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


def _guess(engine: Engine, request: Request, truth: list[int]) -> float:
    """Seconds of the same request with guesses; the completion has to be the same."""
    started = time.perf_counter()
    engine.submit(request)
    if not isinstance(engine.drafter, SetAcceptance):
        assert isinstance(engine.drafter, MtpDrafter)
        engine.drafter = SetAcceptance(engine.drafter, ACCEPTANCE)
    engine.drafter.truth = truth
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
