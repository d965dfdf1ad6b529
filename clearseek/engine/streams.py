"""Addressed randomness: a sample's numbers are a function of its address, never of what ran beside it."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15


def stream_key(*address: int | str) -> int:
    """A 64-bit key for an address such as (run seed, stage, step, problem id)."""
    text = "/".join(str(part) for part in address)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def uniforms(key: int, sample: int, count: int) -> np.ndarray:
    """The first `count` numbers in [0, 1) of stream (key, sample), fp32; a longer draw begins with a shorter.

    SplitMix64 (Steele, Lea, Flood 2014) used as a counter-based generator.
    """
    return uniforms_of([(key, sample)], count)[0]


def uniforms_of(addresses: Sequence[tuple[int, int]], count: int) -> np.ndarray:
    """`uniforms` of several (key, sample) at once, [addresses, count]."""
    starts = [(key + (sample + 1) * _GOLDEN) % 2**64 for key, sample in addresses]
    bits = _mix(_mix(np.array(starts, np.uint64))[:, None] + _steps(count))
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


@lru_cache
def _steps(count: int) -> np.ndarray:
    return np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
