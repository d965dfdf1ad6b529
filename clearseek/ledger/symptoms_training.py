"""What can be wrong with a stage that learns from examples: pretraining, fine-tuning, distillation."""

import math
from collections.abc import Iterator

from clearseek.ledger.finding import Finding
from clearseek.ledger.lines import number
from clearseek.ledger.record import Record, StageRecord, table

MIN_STEPS = 20
FALL = 0.99  # a loss that ends above this share of where it began has not fallen
LOAD_MAX = 2.5  # busiest expert over the mean; balanced routers stay below 1.5


def training_symptoms(stage: StageRecord) -> list[Finding]:
    """Findings of one stage; steps without a loss give none."""
    return [*not_finite(stage), *_loss_not_falling(stage), *expert_collapse(stage)]


def _loss_not_falling(stage: StageRecord) -> Iterator[Finding]:
    losses = [loss for _, loss in stage.series("loss") if math.isfinite(loss)]
    if len(losses) < MIN_STEPS:
        return
    size = max(5, len(losses) // 10)
    first, last = mean(losses[:size]), mean(losses[-size:])
    if last < first * FALL:
        return
    rate = peak(stage, "learning_rate")
    seen = f"mean loss {first:.4g} in the first {size} steps, {last:.4g} in the last {size}"
    yield Finding(
        "warning",
        f"{stage.name}: the loss does not fall",
        f"{seen}; learning rate at most {rate:.3g}" if rate is not None else seen,
        f"{rate_advice(stage, last > first * 1.05)}; see that stages.{stage.name}.data holds what you "
        "mean, and that the stage is long enough",
    )


def not_finite(stage: StageRecord) -> Iterator[Finding]:
    """A loss or gradient that is NaN or infinite."""
    for name in ("loss", "grad_norm"):
        bad = [step for step, value in stage.series(name) if not math.isfinite(value)]
        if bad:
            yield Finding(
                "error",
                f"{stage.name}: {name} is not a number any more",
                f"{len(bad)} steps, the first is step {bad[0]:.0f}",
                f"{rate_advice(stage, lower=True)}, or lower stages.{stage.name}.optimizer.gradient_clip, "
                "or set dtype = 'float32'",
            )
            return


def expert_collapse(stage: StageRecord) -> Iterator[Finding]:
    """A few experts doing all the work."""
    loads = [load for _, load in last_part(stage.series("expert_load_max"))]
    if len(loads) < 3 or mean(loads) <= LOAD_MAX:
        return
    yield Finding(
        "warning",
        f"{stage.name}: a few experts do most of the work",
        f"the busiest expert has {mean(loads):.2f} times the mean load over the last {len(loads)} steps",
        f"raise stages.{stage.name}.bias_update_rate, then stages.{stage.name}.balance_loss_weight",
    )


def rate_advice(stage: StageRecord, lower: bool = False) -> str:
    """Which learning rate to change, and from what."""
    optimizer: Record = table(stage.config.get("optimizer"))
    name = "muon_learning_rate" if optimizer.get("name") == "muon" else "learning_rate"
    now = number(optimizer.get(name))
    value = f" (now {now:g})" if now is not None else ""
    return f"{'lower' if lower else 'raise'} stages.{stage.name}.optimizer.{name}{value}"


def peak(stage: StageRecord, name: str) -> float | None:
    """The largest value a field of the steps had."""
    return max((value for _, value in stage.series(name) if math.isfinite(value)), default=None)


def last_part(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The last quarter of a series, at least five steps of it."""
    return pairs[-max(5, len(pairs) // 4) :]


def mean(numbers: list[float]) -> float:
    """The arithmetic mean; NaN of nothing."""
    return sum(numbers) / len(numbers) if numbers else math.nan
