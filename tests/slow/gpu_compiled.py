"""Compiles the GPU's kernels for an architecture that needn't be here: `python -m tests.slow.gpu_compiled 90`.

Launches compile and compute nothing, at the sizes of published models. Prints a line for each kernel: its name, and the
bytes of shared memory that it takes.
"""

import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as compile_kernel
from triton.runtime.jit import JITFunction

from clearseek.engine.formats import Format
from clearseek.engine.gpu import activation, attention, norms, products, rotary
from clearseek.engine.gpu.experts import sort_by_expert
from clearseek.engine.gpu.weights import Weight

_TYPES = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float8_e4m3fn: "fp8e4nv",
    torch.int32: "i32", torch.int64: "i64", torch.uint8: "u8",
}  # fmt: skip
_HEADS = [
    (16, 8, 64, 64, 0, False), (8, 1, 80, 80, 0, False), (16, 8, 96, 96, 0, False), (16, 8, 128, 128, 0, False),
    (64, 8, 64, 64, 128, True), (64, 4, 192, 128, 0, False), (8, 4, 256, 256, 512, False),
]  # fmt: skip
_FORMS = [Format("bfloat16"), Format("int8"), Format("int4", 128), Format("fp8")]
BF16, FP32, INT32, INT64 = torch.bfloat16, torch.float32, torch.int32, torch.int64


def compile_launches_for(capability: int) -> None:
    """From now on a launch compiles its kernel for compute capability `capability` (90: H100 and H200)."""
    known = set()

    def run(self, *args, grid, warmup=False, num_warps=4, num_stages=3, **named):
        given = dict(zip((param.name for param in self.params), args, strict=False)) | named
        types, constants, facts = {}, {}, {}
        for index, param in enumerate(self.params):
            value = given[param.name]
            if param.is_constexpr or (isinstance(value, int) and value == 1):
                types[param.name], constants[param.name] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                types[param.name] = "*" + _TYPES[value.dtype]
            else:
                types[param.name] = "fp32" if isinstance(value, float) else "i32"
            if isinstance(value, torch.Tensor) or (types[param.name] == "i32" and value % 16 == 0):
                facts[(index,)] = [["tt.divisibility", 16]]
        key = self.__name__, str(types), str(constants)
        if key not in known:
            known.add(key)
            source = ASTSource(self, types, constants, facts)
            options = {"num_warps": num_warps, "num_stages": num_stages}
            made = compile_kernel(source, target=GPUTarget("cuda", capability, 32), options=options)
            print(self.__name__, made.metadata.shared, flush=True)

    JITFunction.run = run


def zeros(*shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def rows(dtype: torch.dtype) -> None:
    """Norms, activations, rotary positions."""
    stream, weight = zeros(4, 7168, dtype=FP32), zeros(7168, dtype=FP32)
    norms.rms_norm(stream, weight, 1e-6, dtype)
    norms.add_rms_norm(stream, zeros(4, 7168, dtype=dtype), weight, 1e-6)
    activation.swiglu(zeros(4, 4096, dtype=dtype))
    activation.swiglu(zeros(4, 5760, dtype=dtype), 7.0, 1.7)
    activation.weigh(zeros(8, 2048, dtype=dtype), zeros(4, 2, dtype=INT64), zeros(4, 2, dtype=FP32))
    tables, places = (zeros(128, 32, dtype=FP32),) * 2, zeros(4, dtype=INT64)
    for norm, after in (
        (None, False),
        ((zeros(128, dtype=FP32), 1e-6), False),
        ((zeros(128, dtype=FP32), 1e-6), True),
    ):
        for pairs in (False, True):
            rotary.rotate(zeros(4, 16, 128, dtype=dtype), tables, places, norm, pairs, True, after)


def multiply(x: torch.Tensor, form: Format) -> None:
    """Products with one matrix, in one stretch of inputs and in several, and with experts'."""
    inputs = x.shape[1]
    for outputs in (256, 16384):
        products.product(x, Weight.of(zeros(outputs, inputs, dtype=FP32), form))
    experts = Weight.of(zeros(4, 256, inputs, dtype=FP32), form)
    tiles = sort_by_expert(zeros(len(x), 2, dtype=INT64), 4).tiles
    products.product_by_tile(x, experts, tiles, 2 * len(x))


def attend(dtype: torch.dtype) -> None:
    """Every head size, and DeepSeek's latents; in fp32 the sizes up to which the kernels are used."""
    places, tables, tiles = zeros(4, dtype=INT64), zeros(2, 32, dtype=INT32), zeros(4, dtype=INT32)
    seen = attention.Rows(places, places, tables, tiles, tiles)
    for heads, groups, size, value_size, window, has_sinks in _HEADS if dtype == BF16 else _HEADS[:-1]:
        query = zeros(4, heads, size, dtype=dtype)
        keys, values = (zeros(8, 64, groups * one, dtype=dtype) for one in (size, value_size))
        sinks = zeros(heads, dtype=FP32) if has_sinks else None
        attention.attend(query, keys, values, seen, attention.Heads(0.1, window, sinks))
    parts = (zeros(4, 128, size, dtype=dtype) for size in (512 if dtype == BF16 else 128, 64))
    attention.attend_latent(
        *parts, zeros(8, 64, 576 if dtype == BF16 else 192, dtype=dtype), seen, attention.Heads(0.1)
    )


if __name__ == "__main__":
    compile_launches_for(int(sys.argv[1]))
    rows(BF16)
    rows(FP32)
    for form in _FORMS:
        multiply(zeros(70, 1024), form)
    multiply(zeros(70, 1024, dtype=FP32), Format("float32"))
    attend(BF16)
    attend(FP32)
