"""A model's matrices as the GPU's kernels read them: plain rows, whole numbers with scales, or fp8 in blocks.

Int8 and int4 are the very numbers of `engine.formats` (GGUF's rounding). Fp8 is DeepSeek-V3's (arXiv:2412.19437 §3.3):
e4m3 with a scale for each block of 128 outputs and 128 inputs.

Shapes: E matrices, O outputs, I inputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from clearseek.engine.formats import FP8_BLOCK, Format, quantise

FP8_MOST = 448.0  # the largest number of e4m3
FP8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Weight:
    """`data` [E, O, I] ([E, O, I / 2] in int4) and, where it is quantised, its scales.

    Those of int8 and int4 are [E, O, I / group] in fp16, those of fp8 [E, O / 128, I / 128] in fp32, rounded up.
    """

    data: Tensor
    scales: Tensor | None
    form: Format
    inputs: int

    @property
    def outputs(self) -> int:
        """Rows of each matrix."""
        return self.data.shape[1]

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        return sum(part.nbytes for part in (self.data, self.scales) if part is not None)

    @classmethod
    def of(cls, weight: Tensor, form: Format, copies: bool = True) -> "Weight":
        """A weight [O, I], or several [E, O, I], packed in a format; without `copies` itself where it has that."""
        weight = weight.detach()
        weight = weight if weight.ndim == 3 else weight.unsqueeze(0)
        return cls(*_packed(weight, form, copies), form, weight.shape[-1])

    def take(self, weight: Tensor) -> None:
        """Become another weight of the same shape, in place: what was captured reads the new numbers."""
        new = Weight.of(weight, self.form, copies=False)
        self.data.copy_(new.data)
        if self.scales is not None and new.scales is not None:
            self.scales.copy_(new.scales)


def _packed(weight: Tensor, form: Format, copies: bool) -> tuple[Tensor, Tensor | None]:
    if not form.is_quantised:
        dtype = torch.float32 if form.name == "float32" else torch.bfloat16
        return weight.to(dtype, copy=copies).contiguous(), None
    if form.name == "fp8":
        parts = [fp8_blocks(one) for one in weight]  # one by one: the fp32 copies are large
        return torch.stack([numbers for numbers, _ in parts]), torch.stack([scales for _, scales in parts])
    rounded = (
        Format("q4_0", form.group) if form.name == "int4" else form
    )  # scales in fp16, which tensor cores take
    quantised = [quantise(one, rounded)[:2] for one in weight]
    whole, scales = (torch.stack(part) for part in zip(*quantised, strict=True))
    return pack_int4(whole, form.group) if form.name == "int4" else whole, scales


def pack_int4(whole: Tensor, group: int) -> Tensor:
    """Whole numbers [..., I] from 0 to 15 as bytes [..., I / 2]: a group's first half low, its second high."""
    low, high = whole.unflatten(-1, (-1, 2, group // 2)).unbind(-2)
    return (low | (high << 4)).flatten(-2)


def fp8_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [O, I] in e4m3, and the scales [O / 128, I / 128] in fp32 that its blocks are multiplied with."""
    outputs, inputs = weight.shape
    blocks = [-(-size // FP8_BLOCK) for size in weight.shape]
    filled = weight.new_zeros(*(count * FP8_BLOCK for count in blocks), dtype=torch.float32)
    filled[:outputs, :inputs] = weight
    cut = filled.view(blocks[0], FP8_BLOCK, blocks[1], FP8_BLOCK)
    scales = cut.abs().amax(dim=(1, 3)) / FP8_MOST
    scales = torch.where(scales > 0, scales, 1.0)
    numbers = (cut / scales[:, None, :, None]).view_as(filled)[:outputs, :inputs]
    return numbers.clamp(-FP8_MOST, FP8_MOST).to(FP8).contiguous(), scales
