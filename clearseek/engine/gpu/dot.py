"""A tile's product with fp32 sums, on a GPU and in Triton's interpreter."""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def dot(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """a [M, K] · b [K, N] in fp32; fp32 numbers are not rounded to TF32.

    The interpreter (Triton 3.9) multiplies the codes of bf16 numbers: it gets them in fp32, which holds their products.
    """
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")
