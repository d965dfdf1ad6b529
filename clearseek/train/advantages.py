"""Advantages: how much better each completion of a group did than the others. Pure functions of rewards.

A group is the completions of one problem; NaN marks a completion that is left out (its verifier failed).
"""

from collections.abc import Callable

import numpy as np

Advantage = Callable[[np.ndarray], np.ndarray]  # rewards [groups, completions] → advantages, 0 where left out
_EPSILON = 1e-6


def center(rewards: np.ndarray) -> np.ndarray:
    """Reward minus the group's mean: no division by its spread (Dr. GRPO, arXiv:2503.20783).

    A group without signal gets exactly 0, whatever rounding its mean has suffered.
    """
    return np.where(has_signal(rewards)[..., None], np.nan_to_num(rewards - _mean(rewards)), 0.0)


def group_std(rewards: np.ndarray) -> np.ndarray:
    """Reward standardised within the group (GRPO, arXiv:2402.03300, eq. 3)."""
    spread = np.sqrt(_mean((rewards - _mean(rewards)) ** 2))
    return center(rewards) / (spread + _EPSILON)


def batch_std(rewards: np.ndarray) -> np.ndarray:
    """Centred in the group, scaled by the spread of the whole batch (arXiv:2508.08221)."""
    centred = center(rewards)
    counted = centred[~np.isnan(rewards)]
    return centred / (float(counted.std()) + _EPSILON) if counted.size else centred


def leave_one_out(rewards: np.ndarray) -> np.ndarray:
    """Reward minus the mean of the *others* in the group (RLOO, arXiv:2402.14740)."""
    count = (~np.isnan(rewards)).sum(-1, keepdims=True)
    return center(rewards) * count / np.maximum(count - 1, 1)


def has_signal(rewards: np.ndarray) -> np.ndarray:
    """Which groups tell anything: at least two counted completions, and not all with the same reward."""
    counted = ~np.isnan(rewards)
    high = np.where(counted, rewards, -np.inf).max(-1)
    low = np.where(counted, rewards, np.inf).min(-1)
    return (counted.sum(-1) >= 2) & (high - low > _EPSILON)


def _mean(values: np.ndarray) -> np.ndarray:
    counted = ~np.isnan(values)
    return np.where(counted, values, 0).sum(-1, keepdims=True) / np.maximum(counted.sum(-1, keepdims=True), 1)


ADVANTAGES: dict[str, Advantage] = {
    "center": center,
    "group_std": group_std,
    "batch_std": batch_std,
    "leave_one_out": leave_one_out,
}
