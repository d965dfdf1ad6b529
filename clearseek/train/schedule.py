"""The learning rate over a stage, as a share of its peak."""

import math

from clearseek.config.recipe import Schedule


def rate_at(schedule: Schedule, step: int, total: int) -> float:
    """Share of the peak rate at `step` (from 0) of `total`: linear warm-up, then constant, cosine, linear."""
    warmup = round(schedule.warmup * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "cosine":
        progress = (step - warmup) / max(total - warmup, 1)
        return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * progress))
    decay = round(schedule.decay * total)
    left = total - step
    return 1.0 if left > decay else schedule.final + (1 - schedule.final) * left / max(decay, 1)
