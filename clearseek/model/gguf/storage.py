"""In which type each tensor of a GGUF file is stored, and the arithmetic of those types.

As llama.cpp's converter and its common recipes do: what is one row, a norm or a router stays fp32; the tensor that
gives the logits is 8-bit where the rest is 4-bit; rows that are not whole blocks take the next wider type. MXFP4 is
for experts, as gpt-oss is published, and holds such weights without loss; what is not an expert is bf16 then.
"""

from collections.abc import Sequence

import numpy as np

from clearseek.config.errors import InputError
from clearseek.model.gguf.header import TYPES
from clearseek.model.gguf.library import gguf_library
from clearseek.model.gguf.q4_0 import quantize_q4_0
from clearseek.model.gguf.q4_k import quantize_q4_k

# what a user may ask for: type of the matrices, number of the file's type (llama.cpp's `llama_ftype`)
DTYPES = {
    "f32": ("F32", 0),
    "f16": ("F16", 1),
    "bf16": ("BF16", 32),
    "q8_0": ("Q8_0", 7),
    "q4_0": ("Q4_0", 2),
    "q4_k": ("Q4_K", 14),
    "mxfp4": ("MXFP4", 38),
}
READABLE = tuple(entry[0] for entry in TYPES.values())

_NUMBERS = {name: number for number, (name, _, _) in TYPES.items()}
_SIZES = {name: (block, block_bytes) for name, block, block_bytes in TYPES.values()}
_WIDER = {"Q4_K": "Q8_0", "Q4_0": "Q8_0", "Q8_0": "F16", "MXFP4": "BF16"}
_EXPERTS = "_exps.weight"
_ALWAYS_F32 = ("_norm.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "indexer.proj.weight")


def stored_type(name: str, shape: Sequence[int], wanted: str, gives_logits: bool) -> str:
    """The type of a tensor in a file whose matrices are of type `wanted`, such as Q4_K."""
    if len(shape) < 2 or name.endswith(_ALWAYS_F32) or not name.endswith(".weight"):
        return "F32"
    chosen = _WIDER[wanted] if is_kept_wider(name, wanted, gives_logits) else wanted
    while shape[-1] % _SIZES[chosen][0]:
        chosen = _WIDER[chosen]
    return chosen


def is_kept_wider(name: str, wanted: str, gives_logits: bool) -> bool:
    """Whether a matrix takes a wider type than `wanted` by choice, however long its rows are."""
    if wanted == "MXFP4":
        return not name.endswith(_EXPERTS)
    return gives_logits and wanted.startswith("Q4")


def num_bytes(shape: Sequence[int], type_name: str) -> int:
    """Bytes of a tensor of `shape` in a type; its rows are whole blocks."""
    block, block_bytes = _SIZES[type_name]
    return int(np.prod(shape, dtype=np.int64)) // block * block_bytes


def encode(weights: np.ndarray, type_name: str) -> np.ndarray:
    """The stored form of fp32 weights: an array of its bytes, or of numbers for F32 and F16."""
    if type_name == "Q4_K":
        return quantize_q4_k(weights)
    if type_name == "Q4_0":
        return quantize_q4_0(weights)
    with np.errstate(over="ignore"):
        stored: np.ndarray = gguf_library().quants.quantize(weights, type_number(type_name))
    return stored


def decode(raw: np.ndarray, type_name: str, shape: Sequence[int]) -> np.ndarray:
    """fp32 weights of `shape` from their bytes; raises InputError for a type without arithmetic."""
    rows = raw.reshape(-1, num_bytes(shape[-1:], type_name))
    try:
        weights: np.ndarray = gguf_library().quants.dequantize(rows, type_number(type_name))
    except NotImplementedError as error:
        raise InputError(f"type {type_name} can't be read ({error})") from error
    return np.require(weights.reshape(tuple(shape)), requirements=["C", "W"])


def type_number(type_name: str) -> int:
    """The library's own number of a type."""
    number: int = gguf_library().GGMLQuantizationType(_NUMBERS[type_name])
    return number
