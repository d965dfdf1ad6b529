"""pass@k and its uncertainty."""

import math
from collections.abc import Sequence

_Z95 = 1.959963984540054  # of a normal distribution, two-sided


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Chance that at least one of `k` samples is right, estimated without bias (arXiv:2107.03374, eq. 1)."""
    if samples - correct < k:
        return 1.0
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def pass_rate_interval(rates: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of per-problem pass rates in [0, 1].

    Wilson's score interval (1927) on the effective number of problems: with one sample each it is Wilson's
    exactly; samples of one problem are not taken for independent problems.
    """
    count = len(rates)
    if count == 0:
        return 0.0, 1.0
    mean = sum(rates) / count
    variance = sum((rate - mean) ** 2 for rate in rates) / count
    bernoulli = mean * (1 - mean)
    effective = count * bernoulli / variance if variance > 0 and bernoulli > 0 else float(count)
    square = _Z95**2 / effective
    centre = (mean + square / 2) / (1 + square)
    half = _Z95 / (1 + square) * math.sqrt(bernoulli / effective + square / (4 * effective))
    return max(0.0, centre - half), min(1.0, centre + half)
