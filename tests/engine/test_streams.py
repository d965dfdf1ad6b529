"""Addressed randomness: uniform, independent across addresses, a longer draw beginning with the shorter."""

import numpy as np
import pytest

from clearseek.engine.streams import stream_key, uniforms, uniforms_of


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("key", [0, 1, 2**64 - 1, stream_key(1, "rl", 3, "problem")])
def test_numbers_are_uniform(key):
    numbers = uniforms(key, 0, 100_000)
    assert numbers.dtype == np.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.bincount((numbers * 100).astype(int), minlength=100)
    assert chi_square(counts) < 149  # 99.9 % of chi-square with 99 degrees of freedom


def test_numbers_of_neighbouring_streams_are_independent():
    """The first numbers of many streams are as uniform as the numbers of one, in every position."""
    first = np.stack([uniforms(key, sample, 4) for key in range(500) for sample in range(8)])
    for position in range(4):
        assert chi_square(np.bincount((first[:, position] * 20).astype(int), minlength=20)) < 44
    for one in range(4):
        for other in range(one):
            assert abs(np.corrcoef(first[:, one], first[:, other])[0, 1]) < 0.06
    by_sample = first[:, 0].reshape(500, 8)
    assert abs(np.corrcoef(by_sample[:, 0], by_sample[:, 1])[0, 1]) < 0.15


def test_successive_numbers_are_independent():
    numbers = uniforms(7, 3, 40_000)
    pairs = (numbers[0::2] * 10).astype(int) * 10 + (numbers[1::2] * 10).astype(int)
    assert chi_square(np.bincount(pairs, minlength=100)) < 149


def test_a_longer_draw_begins_with_the_shorter():
    long = uniforms(11, 2, 257)
    for count in (1, 2, 96, 256):
        assert np.array_equal(uniforms(11, 2, count), long[:count])


def test_streams_differ_in_every_part_of_the_address():
    addresses = [
        (1, "rl", 0, "a"),
        (2, "rl", 0, "a"),
        (1, "sft", 0, "a"),
        (1, "rl", 1, "a"),
        (1, "rl", 0, "b"),
    ]
    keys = {stream_key(*address) for address in addresses}
    assert len(keys) == len(addresses)
    draws = {uniforms(key, sample, 4).tobytes() for key in keys for sample in range(3)}
    assert len(draws) == 3 * len(addresses)


def test_keys_are_the_same_everywhere():
    """Golden values: a key or a number that changed would change every run that was ever recorded."""
    assert stream_key(1, "rl", 3, "p") == 13258732217385528342
    assert uniforms(1, 0, 3).tolist() == ([0.3681895136833191, 0.9435641765594482, 0.045256972312927246])


def test_numbers_of_many_streams_at_once_are_those_of_each():
    addresses = [(key, sample) for key in (0, 3, 2**64 - 1) for sample in (0, 5)]
    drawn = uniforms_of(addresses, 33)
    assert all(
        np.array_equal(row, uniforms(*address, 33)) for row, address in zip(drawn, addresses, strict=True)
    )
