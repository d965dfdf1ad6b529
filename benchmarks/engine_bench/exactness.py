"""Whether an answer depends on what is computed beside it: each request alone, then among others, bit by bit.

`tests/slow/test_exactness.py` counts the same way, on models of more families.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import clearseek
from clearseek.engine.bench.shapes import OUR_FORMATS, SHAPES, saved
from clearseek.engine.bench.workloads import FIRST_PLAIN_ID
from clearseek.engine.engine import Engine
from clearseek.engine.mixed_formats import read_formats
from clearseek.engine.request import Completion, Request, Sampling
from clearseek.model.decoder import Decoder

REQUESTS, BATCH = 10_000, 24
ALONE = (1, 512)  # slots and tokens of a step
TOGETHER = ((3, 50), (24, 7), (24, 2048))
SHARED_TOKENS = 130


@dataclass
class Compared:
    """What was compared; `hits`: prompt tokens that a cache knew."""

    requests: int = 0
    numbers: int = 0
    differing: int = 0
    hits: int = 0

    def __add__(self, other: "Compared") -> "Compared":
        return Compared(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


def random_requests(vocab_size: int, draw: random.Random) -> list[Request]:
    """A batch. Some begin alike, so that they find each other in the cache; one of four takes the likeliest token."""

    def ids(count: int) -> list[int]:
        return [draw.randrange(FIRST_PLAIN_ID, vocab_size) for _ in range(count)]

    shared, requests = ids(SHARED_TOKENS), []
    for key in range(BATCH):
        prompt = shared[: draw.choice((0, 0, 64, SHARED_TOKENS))] + ids(draw.randint(1, 60))
        sampling = Sampling(draw.choice((0, 0.6, 1.0, 1.0)), max_tokens=draw.randint(1, 16))
        requests.append(Request(tuple(prompt), key, 1, sampling))
    return requests


def bits_of(groups: Iterable[Sequence[Completion]]) -> NDArray[np.int64]:
    """All that was computed, as whole numbers."""
    found = [completion for group in groups for completion in group]
    tokens = [token for completion in found for token in completion.tokens]
    numbers = [value for completion in found for value in completion.log_probs]
    means = [completion.entropy for completion in found]
    exact = np.array([*numbers, *means], np.float64).view(np.int64)
    return np.concatenate((np.array(tokens, np.int64), exact))


class Beside:
    """A model in engines that take requests one by one, and several at a time in steps of several lengths."""

    def __init__(self, model: Decoder, form: str) -> None:
        dtype, kept = OUR_FORMATS[form]
        self.vocab_size = model.config.vocab_size
        self.alone, *self.together = [
            Engine(
                model,
                (),
                getattr(torch, dtype),
                slots,
                copies=False,
                form=read_formats(kept),
                step_tokens=step,
                exact=True,
            )
            for slots, step in (ALONE, *TOGETHER)
        ]

    def compare(self, draw: random.Random) -> Compared:
        """One batch of requests: each alone, then all in other orders, with an empty cache and with a full one."""
        requests, answers = random_requests(self.vocab_size, draw), list[list[Completion]]()
        for request in requests:
            answers += self.alone.generate([request])
            self.alone.pool.forget()
        wanted, engine = bits_of(answers), draw.choice(self.together)
        differing = self._differing(engine, requests, wanted, draw)
        known = engine.pool.hits
        differing += self._differing(engine, requests, wanted, draw)
        hits = engine.pool.hits - known
        engine.pool.forget()
        return Compared(BATCH, 2 * len(wanted), differing, hits)

    def _differing(
        self, engine: Engine, requests: list[Request], wanted: NDArray[np.int64], draw: random.Random
    ) -> int:
        order = draw.sample(range(BATCH), BATCH)
        found = dict(zip(order, engine.generate([requests[i] for i in order]), strict=True))
        return int((bits_of(found[i] for i in range(BATCH)) != wanted).sum())


def compare_in_turns(engines: Mapping[str, Beside], total: int, seed: int = 0) -> dict[str, Compared]:
    """By name, of at least `total` requests in all, a batch of each in turn."""
    draw, found = random.Random(seed), {name: Compared() for name in engines}
    for number in range(-(-total // BATCH)):
        name = list(engines)[number % len(engines)]
        found[name] += engines[name].compare(draw)
    return found


def measure_exactness(
    shapes: Sequence[str], formats: Sequence[str], folder: Path, total: int = REQUESTS
) -> dict[str, Any]:
    """How many of all tokens, log-probabilities and entropies differ, by shape and format and in all."""
    engines = {
        f"{shape} {form}": Beside(
            clearseek.load(saved(SHAPES[shape].config, folder), OUR_FORMATS[form][0]).decoder, form
        )
        for shape in shapes
        for form in formats
    }
    found = compare_in_turns(engines, total)
    whole = sum(found.values(), Compared())
    return {**vars(whole), "models": {name: vars(compared) for name, compared in found.items()}}
