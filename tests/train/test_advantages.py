"""Advantages against their definitions, and what must hold whatever the rewards are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from clearseek.train.advantages import ADVANTAGES, center, group_std, has_signal, leave_one_out
from tests.train.small import rl_stage

NAN = float("nan")
REWARD = st.sampled_from([0.0, 1.0, 0.1, 1.2, 1 / 3, NAN])
BATCHES = st.integers(2, 9).flatmap(
    lambda n: st.lists(st.lists(REWARD, min_size=n, max_size=n), min_size=1, max_size=5)
)


@pytest.mark.parametrize("name", ADVANTAGES)
@settings(max_examples=100, deadline=None)
@given(BATCHES)
def test_advantages_of_a_group_sum_to_0(name, batch):
    """T7, with failed verifiers left out."""
    rewards = np.array(batch)
    advantages = ADVANTAGES[name](rewards)
    assert advantages.shape == rewards.shape
    assert np.isfinite(advantages).all()
    assert (advantages[np.isnan(rewards)] == 0).all()
    scale = np.abs(advantages).max(-1) + 1
    assert (np.abs(advantages.sum(-1)) <= 1e-9 * scale).all()


@pytest.mark.parametrize("name", ADVANTAGES)
@settings(max_examples=100, deadline=None)
@given(st.integers(2, 9), st.sampled_from([0.0, 1.0, 0.1, 1.2, 1 / 3, 0.7]), st.integers(0, 8))
def test_a_group_without_spread_is_exactly_0(name, size, reward, num_errors):
    """T8: 0.1 + 0.1 + 0.1 is not 0.3, and a standard deviation of rounding errors would blow that up."""
    rewards = np.full((2, size), reward)
    rewards[0, : min(num_errors, size)] = NAN
    rewards[1, 0] += 0.5  # a neighbour with signal
    assert (ADVANTAGES[name](rewards)[0] == 0).all()
    assert has_signal(rewards).tolist() == [False, True]


@pytest.mark.parametrize("name", ADVANTAGES)
def test_better_than_the_others_is_positive(name):
    advantages = ADVANTAGES[name](np.array([[1.0, 0, 0, 0], [1, 1, 1, 0]]))
    assert (advantages > 0).tolist() == [[True, False, False, False], [True, True, True, False]]
    assert (advantages[0, 1:] == advantages[0, 1]).all()


def test_by_hand():
    rewards = np.array([[1.0, 0, 0, 0], [1, 1, NAN, 0]])
    thirds = [1 / 3, 1 / 3, 0, -2 / 3]
    assert center(rewards) == pytest.approx(np.array([[0.75, -0.25, -0.25, -0.25], thirds]))
    assert leave_one_out(rewards) == pytest.approx(np.array([[1, -1 / 3, -1 / 3, -1 / 3], [0.5, 0.5, 0, -1]]))
    spread = [np.std([1, 0, 0, 0]), np.std([1, 1, 0])]
    expected = center(rewards) / np.array(spread)[:, None]
    assert group_std(rewards) == pytest.approx(expected, abs=1e-5)


def test_one_that_counts_tells_nothing():
    assert has_signal(np.array([[1.0, NAN, NAN], [NAN, NAN, NAN], [1, 0, NAN]])).tolist() == [
        False,
        False,
        True,
    ]


def test_a_group_of_one_is_refused():
    """T7: it has nothing to be compared with, and every advantage would be 0."""
    with pytest.raises(ValidationError, match="group_size"):
        rl_stage(group_size=1)
