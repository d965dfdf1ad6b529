"""How a parameter's pieces are written: in a dtype, or in block-fp8 as DeepSeek publishes V3.

In block-fp8 the maps inside layers are fp8 with an fp32 scale for every 128 x 128 weights; norms, routers, embedding,
head and what joins a multi-token module's halves stay bf16 (DeepSeek-V3's README_WEIGHTS.md and its weights' index).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.families import pieces_of
from clearseek.model.families.pieces import Piece
from clearseek.model.quantised import num_blocks, quantise_block_fp8

FP8 = torch.float8_e4m3fn
_BLOCK = 128, 128
_BESIDE = "_scale_inv"
# matrices inside layers that only decide, by small differences
_DECIDING = ("router.weight", "selection_bias", "shared_gate.weight", "indexer.weights.weight")


def plain_dtype(dtype: torch.dtype) -> torch.dtype:
    """What is not quantised is in."""
    return torch.bfloat16 if dtype == FP8 else dtype


def num_bytes(piece: Piece, state: Mapping[str, Tensor], dtype: torch.dtype) -> int:
    """Of a piece and its scales."""
    view = piece.of(state[piece.ours])
    if _is_quantised(piece, view, dtype):
        return view.numel() + 4 * torch.Size(num_blocks(tuple(view.shape), _BLOCK)).numel()
    return view.numel() * _dtype_of(piece, dtype).itemsize


def written(piece: Piece, state: Mapping[str, Tensor], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The tensors that a piece is written as, by name; `dtype` may be `FP8`."""
    view = piece.of(state[piece.ours]).detach()
    if _is_quantised(piece, view, dtype):
        values, scales = _quantised(view)
        yield piece.published, values
        yield piece.published + _BESIDE, scales
        return
    tensor = view.to(_dtype_of(piece, dtype)).reshape(piece.published_shape(view))
    yield piece.published, tensor.clone() if piece.kind == "copy" else tensor


def names_of(piece: Piece, state: Mapping[str, Tensor], dtype: torch.dtype) -> list[str]:
    """What `written` calls them."""
    is_quantised = _is_quantised(piece, piece.of(state[piece.ours]), dtype)
    return [piece.published, piece.published + _BESIDE] if is_quantised else [piece.published]


def quantisation_config(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    """The key of config.json that says so; of DeepSeek-V3 readers know themselves which matrices stay bf16."""
    if dtype != FP8:
        return {}
    deciding = (piece.published for piece in pieces_of(config) if piece.ours.endswith(_DECIDING))
    kept = [] if config.family == "deepseek_v3" else [name for name in deciding if name.endswith(".weight")]
    settings = {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": list(_BLOCK),
    }
    modules = ["lm_head", *(name.removesuffix(".weight") for name in kept)]
    return {"quantization_config": settings | ({"modules_to_not_convert": modules} if kept else {})}


def check_fp8(config: ModelConfig) -> None:
    """Raise InputError for a family whose published form block-fp8 does not fit."""
    if any(piece.layout != "plain" for piece in pieces_of(config)):
        raise InputError(
            f"family {config.family} publishes its experts transposed, which block-fp8 has no form for; "
            "take --dtype bfloat16"
        )


def _is_quantised(piece: Piece, view: Tensor, dtype: torch.dtype) -> bool:
    is_inside = piece.ours.startswith("layers.") or ".layer." in piece.ours
    return dtype == FP8 and is_inside and view.ndim > 1 and not piece.ours.endswith(_DECIDING)


def _quantised(view: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix, or every one of a stack."""
    if view.ndim == 2:
        return quantise_block_fp8(view, _BLOCK)
    values, scales = zip(*map(quantise_block_fp8, view, [_BLOCK] * len(view)), strict=True)
    return torch.stack(values), torch.stack(scales)


def _dtype_of(piece: Piece, dtype: torch.dtype) -> torch.dtype:
    """A selection bias moves by 0.001 a step, which bf16 would swallow: it stays fp32."""
    return torch.float32 if piece.ours.endswith("selection_bias") else plain_dtype(dtype)
