"""Names and layouts of tensors in GGUF, as llama.cpp's converter gives them, derived from the published ones.

One view of a published tensor serves both ways: it is what a GGUF file holds, and where reading one writes.
Layouts: llama's queries and keys change rows so that rotary turns neighbours; the map out of a latent is two, keys
(transposed, for the absorbed form) and values; experts are stacked, and gpt-oss's, which are published [in, out] with
gates and ups taking turns, lie [out, in] and apart.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.families import pieces_of
from clearseek.model.families.pieces import Piece
from clearseek.model.gguf.architectures import architecture_of
from clearseek.model.gguf.library import gguf_library

Layout = Literal["plain", "pairs", "latent_keys", "latent_values", "transposed", "gates", "ups"]

_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
_PAIRED = re.compile(r"\.(q|k)_proj\.(weight|bias)$")
_SUFFIXES = (".weight", ".bias")
# published names without an ending that llama.cpp's have
_WITHOUT_ENDING = re.compile(r"(\.sinks|\.attention_sink_bias|\.experts\.(gate_up|gate|up|down)_proj)$")
_BIASES_ANYWHERE = ("exp_probs_b", ".indexer.")


@dataclass(slots=True)
class Entry:
    """A tensor of a GGUF file and the published ones that it holds: one, or every expert's."""

    name: str
    layout: Layout
    pieces: list[Piece]
    is_stacked: bool


def entries_of(config: ModelConfig) -> Iterator[Entry]:
    """Every tensor that a GGUF file of this model holds, in the published order.

    Multi-token modules are left out: llama.cpp does not read them. Raises InputError for a family or a tensor that
    it has no name for.
    """
    names = _name_map(config)
    found: dict[str, Entry] = {}
    for piece in pieces_of(config):
        layer = _LAYER.match(piece.published)
        if piece.kind != "own" or (layer and int(layer[1]) >= config.num_layers) or "mtp" in piece.published:
            continue
        for published, layout in _layouts(config, piece):
            is_stacked = _EXPERT.search(published) is not None
            name = _gguf_name(names, published)
            _check_bias(config, published, name)
            entry = found.setdefault(name, Entry(name, layout, [], is_stacked))
            entry.pieces.append(piece)
    yield from found.values()


def view_of(config: ModelConfig, layout: Layout, tensor: Tensor) -> Tensor:
    """A view of a published tensor in the order of GGUF; for pairs [heads, D / 2, 2, …], which flattens to rows."""
    if layout == "pairs":
        heads = tensor.shape[0] // config.head_size
        return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2)
    if layout == "plain":
        return tensor
    if layout == "transposed":
        return tensor.transpose(1, 2)
    if layout in ("gates", "ups"):  # [E, in, out, 2], or of biases [E, out, 2]
        half = tensor[..., ("gates", "ups").index(layout)]
        return half.transpose(1, 2) if half.ndim > 2 else half
    keys = config.qk_nope_head_dim or 0
    by_head = tensor.unflatten(0, (config.num_heads, -1))
    return by_head[:, :keys].transpose(1, 2) if layout == "latent_keys" else by_head[:, keys:]


def shape_of(config: ModelConfig, entry: Entry, tensor: Tensor) -> tuple[int, ...]:
    """The shape that GGUF gives an entry, whose published tensors are shaped like `tensor`."""
    shape = tensor.shape if entry.layout == "pairs" else view_of(config, entry.layout, tensor).shape
    return (len(entry.pieces), *shape) if entry.is_stacked else tuple(shape)


def _check_bias(config: ModelConfig, published: str, name: str) -> None:
    """Raise InputError for a bias that llama.cpp would not find a place for."""
    architecture = architecture_of(config.family)
    is_foreign = name.endswith(".bias") and not any(part in name for part in _BIASES_ANYWHERE)
    if is_foreign and not architecture.has_biases:
        raise InputError(
            f"{published} can't be written as GGUF: llama.cpp's {architecture.name} has no biases. Use --to hf"
        )


def _layouts(config: ModelConfig, piece: Piece) -> list[tuple[str, Layout]]:
    """The tensors that llama.cpp makes of a published one: its name for the library's table, and its layout."""
    published = piece.published
    if piece.layout == "transposed":
        return [(published, "transposed")]
    if piece.layout != "plain":
        return [
            (published.replace("gate_up_proj", "gate_proj"), "gates"),
            (published.replace("gate_up_proj", "up_proj"), "ups"),
        ]
    if published.endswith("kv_b_proj.weight"):
        return [
            (published.replace("kv_b_proj", "k_b_proj"), "latent_keys"),
            (published.replace("kv_b_proj", "v_b_proj"), "latent_values"),
        ]
    if _PAIRED.search(published) and architecture_of(config.family).turns_pairs:
        return [(published, "pairs")]
    return [(published, "plain")]


def _gguf_name(names: Any, published: str) -> str:
    """llama.cpp's name, after the small changes that its converter makes before it looks one up."""
    key = _EXPERT.sub(".experts.", published).replace("e_score_correction_bias", "e_score_correction.bias")
    key = re.sub(r"_proj_bias$", "_proj.bias", key)
    if _WITHOUT_ENDING.search(key):
        key += ".weight"
    if ".block_sparse_moe.experts." in key:
        key = key.replace("model.layers", "layers").replace("block_sparse_moe", "feed_forward")
    name: str | None = names.get_name(key, try_suffixes=_SUFFIXES)
    if name is None:
        raise InputError(f"{published} has no name in GGUF; this model can't be written as GGUF, use --to hf")
    return name


def _name_map(config: ModelConfig) -> Any:
    gguf = gguf_library()
    architecture = architecture_of(config.family)
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    number = numbers.get(architecture.name, numbers.get(architecture.table))
    if number is None:
        raise InputError(
            f"the installed gguf library does not know {architecture.name}; install gguf 0.19 or later"
        )
    return gguf.get_tensor_name_map(number, config.num_layers)
