"""Accelerators that a plan can be made for: their peaks, what is got out of them, what they cost.

Every number names its source. Peaks are dense, in TFLOP/s of one accelerator ("half of it" where a data sheet
counts sparsity); memory is in decimal GB as sold.
"""

from dataclasses import dataclass

from clearseek.config.errors import InputError
from clearseek.config.load import nearest

# DeepSeek-V3's own training: 385 TFLOP/s of the bf16 peak with causal attention counted by half, as
# `clearseek.train.flops` counts it too.
_DEEPSEEK = (0.3894, "DeepSeek-V3 on 2,048 H800: arXiv:2505.09343, table 4, causal, of the bf16 peak")
_ASSUMED = (_DEEPSEEK[0], "taken over from DeepSeek-V3's H800 (arXiv:2505.09343, table 4), not measured here")
# 14,800 tokens/s of an 8-GPU node at a mean context of 4,989 tokens: 1,850 × 98.2 GFLOP = 182 TFLOP/s.
SAMPLING_UTILISATION = 0.184
SAMPLING_SOURCE = (
    "DeepSeek-V3/R1 serving, 28 February 2025: 14.8k output tokens/s per node of eight H800 at 4,989 tokens "
    "of context (open-infra-index, day 6), of the bf16 peak"
)
_NVIDIA_HOPPER = "NVIDIA H100 data sheet, SXM (half of it)"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One kind of accelerator, each figure with where it comes from."""

    name: str
    title: str
    bf16_tflops: float
    fp8_tflops: float | None
    memory_gb: float
    specification: str
    training_utilisation: tuple[float, str]
    price_per_hour: float
    price_source: str


ACCELERATORS: dict[str, Accelerator] = {
    accelerator.name: accelerator
    for accelerator in (
        Accelerator(
            "h800", "NVIDIA H800", 989.4, 1978.9, 80,
            f"{_NVIDIA_HOPPER}; the H800 differs in its links only",
            _DEEPSEEK, 2.0, "the rental price DeepSeek reckons with: arXiv:2412.19437, table 1",
        ),
        Accelerator(
            "h100", "NVIDIA H100 SXM", 989.4, 1978.9, 80, _NVIDIA_HOPPER,
            (0.41, "Llama 3 405B on 16,384 H100: arXiv:2407.21783, table 4"),
            3.0, "specialised clouds, middle of $2.50 to $3.50: mercatus-ai.com, May 2026",
        ),
        Accelerator(
            "h200", "NVIDIA H200 SXM", 989.4, 1978.9, 141, "NVIDIA H200 data sheet, SXM (half of it)",
            _ASSUMED, 4.0, "specialised clouds, middle of $3.50 to $4.50: mercatus-ai.com, May 2026",
        ),
        Accelerator(
            "a100", "NVIDIA A100 80GB SXM", 312.0, None, 80, "NVIDIA A100 data sheet, 80GB SXM",
            (0.471, "OPT-175B on 992 A100, 147 TFLOP/s each: arXiv:2205.01068, section 2.3"),
            1.3, "specialised clouds, middle of $1.10 to $1.50: mercatus-ai.com, May 2026",
        ),
        Accelerator(
            "b200", "NVIDIA B200 (HGX)", 2250.0, 4500.0, 180, "NVIDIA HGX B200 data sheet (half of it)",
            _ASSUMED, 4.5, "Vast.ai, on demand: usagepricing.com, June 2026",
        ),
        Accelerator(
            "4090", "NVIDIA GeForce RTX 4090", 165.2, 330.3, 24,
            "NVIDIA Ada architecture white paper, accumulating in fp32",
            _ASSUMED, 0.78, "Vast.ai, on demand, middle of $0.68 to $0.88: usagepricing.com, June 2026",
        ),
        Accelerator(
            "mi300x", "AMD Instinct MI300X", 1307.4, 2614.9, 192, "AMD Instinct MI300X data sheet",
            _ASSUMED, 1.85, "Vultr, on demand: gpu.blog, 2026",
        ),
    )
}  # fmt: skip


def find_accelerator(name: str) -> Accelerator:
    """The accelerator called `name`, in any case; InputError lists what there is."""
    known = list(ACCELERATORS)
    if name.lower() not in ACCELERATORS:
        listed = "" if "known" in (hint := nearest(name.lower(), known)) else f" (known: {', '.join(known)})"
        raise InputError(f"accelerator {name!r} is not known{hint}{listed}")
    return ACCELERATORS[name.lower()]
