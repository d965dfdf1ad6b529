"""What stands between a feed-forward's two products on a GPU, and how routed experts' outputs come together.

Shapes: N rows, I width, K experts per token, C columns.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_COLUMNS = 1024  # of a row at a time


@triton.jit
def _swiglu(
    gate_up: tl.tensor, hidden: tl.tensor, limit: tl.tensor, alpha: tl.tensor,
    size: tl.constexpr, columns: tl.constexpr, is_limited: tl.constexpr,
) -> None:  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * columns + tl.arange(0, columns)
    inside = column < size
    gate = tl.load(gate_up + row * 2 * size + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * size + size + column, mask=inside, other=0.0).to(tl.float32)
    if is_limited:
        gate, up = tl.minimum(gate, limit), tl.minimum(tl.maximum(up, -limit), limit) + 1
        gate *= 1 / (1 + tl.exp(-alpha * gate))
    else:
        gate *= 1 / (1 + tl.exp(-gate))
    tl.store(hidden + row * size + column, (gate * up).to(hidden.dtype.element_ty), mask=inside)


def swiglu(gate_up: Tensor, limit: float | None = None, alpha: float = 1.0) -> Tensor:
    """`silu(gate) * up` of gate_up [N, 2 · I], or gpt-oss's with a `limit`: see `MixtureOfExperts.activate`."""
    rows, both = gate_up.shape
    hidden = torch.empty(rows, both // 2, dtype=gate_up.dtype, device=gate_up.device)
    columns = min(_COLUMNS, triton.next_power_of_2(both // 2))
    grid = rows, triton.cdiv(both // 2, columns)
    _swiglu[grid](gate_up.contiguous(), hidden, limit or 0.0, alpha, both // 2, columns, limit is not None)
    return hidden


@triton.jit
def _weigh(
    outputs: tl.tensor, places: tl.tensor, gates: tl.tensor, mixed: tl.tensor,
    count: tl.constexpr, size: tl.constexpr, columns: tl.constexpr,
) -> None:  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * columns + tl.arange(0, columns)
    inside = column < size
    total = tl.zeros((columns,), tl.float32)
    for chosen in range(count):
        place = tl.load(places + row * count + chosen).to(tl.int64)
        output = tl.load(outputs + place * size + column, mask=inside, other=0.0).to(tl.float32)
        total += output * tl.load(gates + row * count + chosen)
    tl.store(mixed + row * size + column, total.to(mixed.dtype.element_ty), mask=inside)


def weigh(outputs: Tensor, places: Tensor, gates: Tensor) -> Tensor:
    """Σ gates[n, k] · outputs[places[n, k]] over k in order: outputs [N · K, C], the others [N, K]; gates in fp32."""
    (rows, count), size = places.shape, outputs.shape[1]
    mixed = torch.empty(rows, size, dtype=outputs.dtype, device=outputs.device)
    columns = min(_COLUMNS, triton.next_power_of_2(size))
    _weigh[(rows, triton.cdiv(size, columns))](
        outputs, places.contiguous(), gates.contiguous(), mixed, count, size, columns
    )
    return mixed
