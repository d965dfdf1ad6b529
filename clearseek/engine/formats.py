"""Weights in the formats that the engine reads them in, laid out for its kernels: see `model/kernels/formats.h`.

Quantised weights are whole numbers times a scale for each output and group of inputs. Int8 and Q4_0 are rounded as we
write GGUF's blocks: what is quantised here and what is read from such a file are the same numbers. Int4 has scales of a
byte, in units of a factor of each output: as many bits as Q4_0 would have in groups twice as wide.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from clearseek.config.errors import InputError
from clearseek.model.gguf.q4_0 import round_int4, round_int4_in_bytes
from clearseek.model.huge_pages import HugePages
from clearseek.model.kernels.functions import call

FormatName = Literal["float32", "bfloat16", "int8", "q4_0", "fp8", "int4"]
GROUPS = (32, 64, 128)
FP8_BLOCK = 128  # outputs and inputs that share a scale in fp8, which GPUs alone compute with
PANEL = 64  # outputs side by side, as in formats.h
_NUMBERS: dict[FormatName, int] = {"float32": 0, "bfloat16": 1, "int8": 2, "q4_0": 3, "fp8": 4, "int4": 5}
NAMES: tuple[FormatName, ...] = (
    "float32",
    "bfloat16",
    "int8",
    "int4",
    "fp8",
)  # that can be asked for; Q4_0 is a file's
_SCALE_BYTES = {"int8": 2, "q4_0": 2, "int4": 1}
_FACTOR_BYTES = 4  # of each output in int4


@dataclass(frozen=True)
class Format:
    """How a weight is kept; `group` inputs share a scale in int8 and int4. InputError for another group.

    Where it `widens`, the engine takes the widest group that a model's sizes are multiples of.
    """

    name: FormatName
    group: int = 32
    widens: bool = False

    def __post_init__(self) -> None:
        if self.name not in _NUMBERS:
            raise InputError(f"{self.name} is no weight format; there are {', '.join(NAMES)}")
        if self.group not in GROUPS:
            raise InputError(
                f"group {self.group}: weights can be quantised in groups of 32, 64 or 128 inputs"
            )

    @property
    def number(self) -> int:
        """Its number in the kernels."""
        return _NUMBERS[self.name]

    @property
    def is_quantised(self) -> bool:
        """Whether numbers are rounded to fewer bits than activations have."""
        return self.has_group or self.name == "fp8"

    @property
    def has_group(self) -> bool:
        """Whether `group` inputs share a scale."""
        return self.name in _SCALE_BYTES

    @property
    def names(self) -> frozenset[FormatName]:
        """Of all formats that it means."""
        return frozenset([self.name])

    @property
    def bytes_per_weight(self) -> float:
        """Memory per number, scales included; not the factors of outputs."""
        if self.name == "fp8":
            return 1.0 + 4 / FP8_BLOCK**2
        if not self.is_quantised:
            return 4.0 if self.name == "float32" else 2.0
        return (1.0 if self.name == "int8" else 0.5) + _SCALE_BYTES[self.name] / self.group

    def with_group(self, group: int) -> "Format":
        """The same with a group that is settled."""
        return Format(self.name, group)

    @property
    def is_as_stored(self) -> bool:
        """Whether what a file keeps in whole numbers keeps its own format. `Formats` can."""
        return False

    def of(self, part: str) -> "Format":
        """Itself: every part of a model is kept so. `Formats` says more."""
        return self

    def num_bytes(self, outputs: int, inputs: int) -> int:
        """Of a weight [outputs, inputs], filled up to whole panels."""
        factor = _FACTOR_BYTES if self.name == "int4" else 0
        return round(-(-outputs // PANEL) * PANEL * (inputs * self.bytes_per_weight + factor))


class Quantised(NamedTuple):
    """Whole numbers [..., outputs, inputs] from 0 on (uint8) and scales [..., outputs, inputs / group] in fp16.

    In int4 scales are int8, in units of `factors` [..., outputs] in fp32.
    """

    whole: Tensor
    scales: Tensor
    factors: Tensor | None = None


def quantise(weight: Tensor, form: Format) -> Quantised:
    """Round a weight [outputs, inputs] to a format of groups, as `lay_out` does."""
    groups = weight.float().unflatten(-1, (-1, form.group))
    if form.name == "int4":
        whole, scales, units = map(torch.from_numpy, round_int4_in_bytes(groups.numpy(force=True)))
        return Quantised(whole.flatten(-2), scales, units)
    if form.name == "q4_0":
        numbers, factors = map(torch.from_numpy, round_int4(groups.numpy(force=True)))
        return Quantised(numbers.flatten(-2), factors)
    scale = groups.abs().amax(-1, keepdim=True) / 127
    scaled = groups * torch.where(scale > 0, 1 / scale, 0.0)
    whole = (scaled + scaled.sign() * 0.5).trunc() + 128
    return Quantised(whole.to(torch.uint8).flatten(-2), scale.squeeze(-1).half())


def dequantise(weight: Quantised, form: Format) -> Tensor:
    """The numbers that a quantised weight stands for, [outputs, inputs] in fp32."""
    zero = 128 if form.name == "int8" else 8
    groups = weight.whole.float().unflatten(-1, (-1, form.group)) - zero
    scales = weight.scales.float()
    if weight.factors is not None:
        scales = scales * weight.factors.unsqueeze(-1)
    return (groups * scales.unsqueeze(-1)).flatten(-2)


def lay_out(weight: Tensor, form: Format, memory: HugePages | None = None) -> Tensor:
    """A weight [..., outputs, inputs] in fp32 or bf16 as the kernels read it: bytes [..., n]."""
    *many, outputs, inputs = weight.shape
    dtype = torch.float32 if weight.dtype == torch.float32 else torch.bfloat16
    weight = weight.detach().to(dtype).contiguous().view(-1, outputs, inputs)
    laid = (memory or HugePages()).empty(len(weight), form.num_bytes(outputs, inputs), dtype=torch.uint8)
    for one, to in zip(weight, laid, strict=True):
        call("lay_out_weight", int(dtype == torch.float32), one, outputs, inputs, form.number, form.group, to)
    return laid.view(*many, -1)


def lay_out_quantised(weight: Quantised, form: Format, memory: HugePages | None = None) -> Tensor:
    """The same of a weight that is quantised already."""
    *many, outputs, inputs = weight.whole.shape
    whole = weight.whole.contiguous().view(-1, outputs, inputs)
    scales = weight.scales.contiguous().view(-1, outputs, inputs // form.group)
    factors = [None] * len(whole) if weight.factors is None else weight.factors.contiguous().view(-1, outputs)
    laid = (memory or HugePages()).empty(len(whole), form.num_bytes(outputs, inputs), dtype=torch.uint8)
    for numbers, some, units, to in zip(whole, scales, factors, laid, strict=True):
        call("lay_out_quantised", numbers, some, units, outputs, inputs, form.number, form.group, to)
    return laid.view(*many, -1)


def product(x: Tensor, laid: Tensor, outputs: int, form: Format) -> Tensor:
    """x [N, inputs] in fp32 or bf16 · a laid out weight: [N, outputs] in fp32. The kernel alone, to test and time."""
    x = x.contiguous()
    y = torch.empty(len(x), outputs)
    is_wide = int(x.dtype == torch.float32)
    call("weight_product", is_wide, x, laid, *x.shape, outputs, form.number, form.group, y)
    return y
