"""pass@k against counting every draw, its interval against closed form and bootstrap."""

import itertools
import math
import random

import pytest

from clearseek.eval.intervals import pass_at_k, pass_rate_interval


@pytest.mark.parametrize("samples", range(1, 8))
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(samples):
    for correct in range(samples + 1):
        marks = [True] * correct + [False] * (samples - correct)
        for k in range(1, samples + 1):
            draws = list(itertools.combinations(marks, k))
            expected = sum(map(any, draws)) / len(draws)
            assert pass_at_k(samples, correct, k) == pytest.approx(expected), (correct, k)


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's interval as its author gives it: the roots of (p − rate)² = z² p (1 − p) / count."""
    z, rate = 1.959963984540054, right / count
    a, b, c = 1 + z * z / count, -(2 * rate + z * z / count), rate * rate
    root = math.sqrt(b * b - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


@pytest.mark.parametrize(("right", "count"), [(0, 10), (3, 10), (10, 10), (1, 1), (150, 300), (299, 300)])
def test_one_sample_a_problem_gives_wilson_s_interval(right, count):
    rates = [1.0] * right + [0.0] * (count - right)
    assert pass_rate_interval(rates) == pytest.approx(wilson(right, count), abs=1e-9)


def test_several_samples_a_problem_agree_with_the_bootstrap():
    draw = random.Random(5)
    chances = [draw.betavariate(2, 1) for _ in range(200)]
    rates = [sum(draw.random() < chance for _ in range(8)) / 8 for chance in chances]
    means = sorted(sum(draw.choices(rates, k=len(rates))) / len(rates) for _ in range(2000))
    low, high = pass_rate_interval(rates)
    assert low == pytest.approx(means[50], abs=0.01)
    assert high == pytest.approx(means[1949], abs=0.01)


def test_samples_of_one_problem_are_no_problems_of_their_own():
    same = [1.0] * 30 + [0.0] * 20  # eight samples that always agree tell no more than one
    low, high = pass_rate_interval(same)
    assert (low, high) == pytest.approx(wilson(30, 50))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    draw = random.Random(11)
    covered = 0
    for _ in range(600):
        rates = [float(draw.random() < 0.85) for _ in range(60)]
        low, high = pass_rate_interval(rates)
        covered += low <= 0.85 <= high
    assert 0.92 <= covered / 600 <= 0.98


@pytest.mark.parametrize("rates", [[0.5], [0.5] * 40, [0.0], [1.0] * 3, [0.25, 0.75]])
def test_the_interval_holds_the_mean_and_stays_within_bounds(rates):
    low, high = pass_rate_interval(rates)
    assert 0 <= low <= sum(rates) / len(rates) <= high <= 1


def test_no_problem_tells_nothing():
    assert pass_rate_interval([]) == (0.0, 1.0)
