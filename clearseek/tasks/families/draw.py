"""Quick draws from a random stream: one `rng.random()` each, so that languages stay in step."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


def between(rng: Random, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return low + int(rng.random() * (high - low + 1))


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of the options."""
    return options[int(rng.random() * len(options))]


def signed_terms(rng: Random, start: int, count: int) -> list[int]:
    """Two-digit numbers to add (positive) or take away (negative); the value stays within 0 and 198."""
    terms: list[int] = []
    value = start
    for _ in range(count):
        subtract = value > 99 or (value > 10 and rng.random() < 0.5)
        terms.append(-between(rng, 10, min(value, 99)) if subtract else between(rng, 10, 99))
        value += terms[-1]
    return terms
