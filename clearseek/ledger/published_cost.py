"""What DeepSeek published of the cost of V3 and R1, and how many times that a run of ours could have been made."""

from typing import Any

# arXiv:2412.19437, table 1: H800 hours of pretraining, context extension and post-training, at 2 USD an hour
V3_GPU_HOURS, V3_USD = 2.788e6, 5.576e6
# DeepSeek-R1's supplement, B.4.4, table 7: R1-Zero, making the SFT data, R1; at 2 USD an hour
R1_GPU_HOURS, R1_USD = 147e3, 294e3
ACTIVE_PARAMETERS, TOKENS = 37e9, 14.8e12  # arXiv:2412.19437, abstract
H800_WATTS = 700.0

ASSUMPTIONS = (
    "their cost: 2,788,000 H800 hours for V3 and 147,000 for R1 on top, at 2 USD an hour, as published; research and "
    "ablations before it are not in it",
    "their operations: 6 per active parameter and token of V3's pretraining (37 billion, 14.8 trillion), our "
    "reckoning; R1's are not published",
    "their energy: every H800 hour at 700 W, our estimate; nothing is published",
    "not the same product: theirs has 671 billion parameters and knows the world",
)


def beside_published(summed: dict[str, Any], currency: str) -> dict[str, Any]:
    """DeepSeek-V3 and R1 together divided by a run's `money`, `flops` and `kwh`; None where that can't be divided."""
    hours = V3_GPU_HOURS + R1_GPU_HOURS
    published = {
        "gpu_hours": hours,
        "money": V3_USD + R1_USD,
        "flops": 6 * ACTIVE_PARAMETERS * TOKENS,
        "kwh": hours * H800_WATTS / 1000,
    }
    ratio = {
        name: published[name] / summed[name] if summed[name] > 0 else None
        for name in ("money", "flops", "kwh")
    }
    if currency != "USD":
        ratio["money"] = None  # theirs is in dollars
    return {"published": published, "ratio": ratio, "assumptions": list(ASSUMPTIONS)}
