"""Root-mean-square norm on a GPU, fused with the sum that it mostly follows.

Shapes: N rows, C columns.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _norm(
    stream: tl.tensor, delta: tl.tensor, weight: tl.tensor, normed: tl.tensor, eps: tl.tensor,
    size: tl.constexpr, width: tl.constexpr, adds: tl.constexpr,
) -> None:  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, width)
    inside = column < size
    total = tl.load(stream + row * size + column, mask=inside, other=0.0).to(tl.float32)
    if adds:
        total += tl.load(delta + row * size + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(stream + row * size + column, total, mask=inside)
    factor = 1 / tl.sqrt(tl.sum(total * total, axis=0) / size + eps)
    weights = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(
        normed + row * size + column, (total * factor * weights).to(normed.dtype.element_ty), mask=inside
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Each row of x [N, C] over its root mean square, times weight [C] (arXiv:1910.07467); sums in fp32."""
    return _launch(x.contiguous(), None, weight, eps, dtype)


def add_rms_norm(stream: Tensor, delta: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add delta [N, C] to the stream [N, C] in place; returns the norm of the sum in delta's dtype."""
    return _launch(stream, delta.contiguous(), weight, eps, delta.dtype)


def _launch(stream: Tensor, delta: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    assert stream.is_contiguous()
    normed = torch.empty(stream.shape, dtype=dtype, device=stream.device)
    size = stream.shape[-1]
    adds = delta is not None
    _norm[(len(stream),)](
        stream, delta if adds else stream, weight, normed, eps, size, triton.next_power_of_2(size), adds
    )
    return normed
