"""Whether reinforcement learning learns with the very bits that it sampled with, and what that costs.

Only latent attention has two forms: the absorbed one, in which the engine decodes, and the expanded one, which learns
faster where ranks are large. Whether the price is worth it is decided by the model's shape alone, so that a run that is
resumed or computed again decides alike.
"""

from dataclasses import dataclass
from typing import Literal

from clearseek.config.model import ModelConfig

MOST = 0.10  # the highest price, as a share, that is paid without being asked for


@dataclass(frozen=True)
class Price:
    """How much longer something takes with latents of up to `rank`, as a share."""

    rank: int
    share: float
    of: str


# docs/log.md, 2026-11-29, "sampler and trainer to the bit"; ranks between two take the higher price
PRICES = (Price(64, 0.04, "a step takes"), Price(512, 0.37, "learning rows of 1,024 tokens takes"))


def recorded_price(config: ModelConfig) -> Price | None:
    """What exactness was measured to cost such a model; None: its attention has one form only."""
    if config.kv_lora_rank is None or config.index_topk:
        return None
    rank = config.kv_lora_rank
    return next((price for price in PRICES if rank <= price.rank), PRICES[-1])


def is_exact(wanted: bool | Literal["auto"], config: ModelConfig) -> bool:
    """What a stage's `exact` comes to for this model."""
    if wanted != "auto":
        return wanted
    price = recorded_price(config)
    return price is None or price.share < MOST


def describe(exact: bool, config: ModelConfig, hindrance: str | None) -> str:
    """One line that says how a stage learns, and at what price. `hindrance`: what forbids it anyway, if anything."""
    if hindrance is not None:
        return (
            f"not exact: what was sampled and what is learnt from are only near, without kernels: {hindrance}"
        )
    price = recorded_price(config)
    if price is None:
        return "exact: has no price, for this model's attention has one form"
    cost = f"{price.of} {1 + price.share:.2f} times as long with latents of rank {price.rank}, as recorded"
    return f"exact: {cost}" if exact else f"not exact: {cost}; `exact = true` pays it"
