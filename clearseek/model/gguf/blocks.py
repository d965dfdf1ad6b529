"""Weights that stay in their GGUF file until the engine lays them out: whole numbers and scales as the file has them.

Q8_0 and Q4_0 blocks are 32 weights with one fp16 scale (ggml's `block_q8_0` and `block_q4_0`): they need no second
rounding, and no copy in floats.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clearseek.config.model import ModelConfig
from clearseek.model.gguf.header import GgufFile, StoredTensor
from clearseek.model.gguf.storage import decode
from clearseek.model.gguf.tensors import Entry, shape_of, view_of
from clearseek.model.unread import Half, Kind

BLOCK = 32
_KINDS: dict[str, Kind] = {"Q8_0": "int8", "Q4_0": "q4_0"}
_SCALE_BYTES = 2


@dataclass
class GgufWeights:
    """The matrices of a file by our parameters' names, whose `shapes` are given; of a latent's map each half."""

    file: GgufFile
    config: ModelConfig
    shapes: dict[str, torch.Size]
    entries: dict[tuple[str, Half | None], list[Entry]] = field(default_factory=lambda: defaultdict(list))

    def add(self, entry: Entry) -> None:
        """Have a tensor of the file as (a part of) a parameter."""
        half: Half | None = None
        if entry.layout == "latent_keys" or entry.layout == "latent_values":
            half = entry.layout
        self.entries[entry.pieces[0].ours, half].append(entry)

    def __contains__(self, name: str) -> bool:
        return (name, None) in self.entries or (name, "latent_keys") in self.entries

    @property
    def kinds(self) -> list[Kind]:
        """Of all blocks, those of most bytes first."""
        sizes: dict[Kind, int] = defaultdict(int)
        for name, half in list(self.entries):
            kind = self.kind(name, half)
            if kind is not None:
                sizes[kind] += sum(stored.num_bytes for stored, _ in self._stored(name, half))
        return sorted(sizes, key=lambda kind: -sizes[kind])

    def kind(self, name: str, half: Half | None = None) -> Kind | None:
        """Which blocks a parameter is kept in; None: in another type, or in several."""
        kinds = {_KINDS.get(stored.type_name) for stored, _ in self._stored(name, half)}
        return kinds.pop() if len(kinds) == 1 else None

    def blocks(self, name: str, half: Half | None = None) -> tuple[Tensor, Tensor]:
        """Whole numbers [..., outputs, inputs] from 0 on (uint8) and scales [..., outputs, inputs / 32] in fp16."""
        shape, kept = self._shape(name, half), self._stored(name, half)
        if len(kept) == 1 and self._is_whole(kept[0][1], half):
            return _parts(self.file.bytes_of(kept[0][0]), kept[0][0])
        whole = torch.empty(shape, dtype=torch.uint8)
        scales = torch.empty((*shape[:-1], shape[-1] // BLOCK), dtype=torch.float16)
        for stored, entry in kept:
            for to, part in zip((whole, scales), _parts(self.file.bytes_of(stored), stored), strict=True):
                places = self._places(entry, half, to)
                for place, one in zip(places, part.reshape(len(places), -1), strict=True):
                    place.copy_(one.reshape(place.shape))
        return whole, scales

    def floats(self, name: str, half: Half | None = None) -> Tensor:
        """The same as numbers [..., outputs, inputs] in fp32."""
        to = torch.empty(self._shape(name, half))
        for stored, entry in self._stored(name, half):
            places = self._places(entry, half, to)
            raw = self.file.bytes_of(stored).reshape(len(places), -1)
            for place, one in zip(places, raw, strict=True):
                rows = place.numel() // stored.shape[-1], stored.shape[-1]
                place.copy_(torch.from_numpy(decode(one, stored.type_name, rows)).reshape(place.shape))
        return to

    def _is_whole(self, entry: Entry, half: Half | None) -> bool:
        """Whether an entry is all of a parameter, or of its half, as it is."""
        return half is not None or (
            entry.layout == "plain" and len(entry.pieces) == 1 and entry.pieces[0].index == ()
        )

    def _stored(self, name: str, half: Half | None) -> list[tuple[StoredTensor, Entry]]:
        return [(self.file.tensors[entry.name], entry) for entry in self.entries[name, half]]

    def _places(self, entry: Entry, half: Half | None, to: Tensor) -> list[Tensor]:
        """Where each of the published tensors that an entry holds lies in the parameter, or in its half."""
        if half is not None:
            return [to]
        return [view_of(self.config, entry.layout, piece.of(to)) for piece in entry.pieces]

    def _shape(self, name: str, half: Half | None) -> torch.Size:
        if half is None:
            return self.shapes[name]
        whole = torch.empty(self.shapes[name], device="meta")
        return torch.Size(shape_of(self.config, self.entries[name, half][0], whole))


def _parts(raw: np.ndarray, stored: StoredTensor) -> tuple[Tensor, Tensor]:
    """A tensor's bytes as whole numbers and scales."""
    shape = stored.shape
    blocks = raw.reshape(*shape[:-1], shape[-1] // BLOCK, -1)
    scales, numbers = blocks[..., :_SCALE_BYTES], blocks[..., _SCALE_BYTES:]
    whole = np.empty((*blocks.shape[:-1], BLOCK), np.uint8)
    if _KINDS[stored.type_name] == "int8":
        np.bitwise_xor(numbers, 128, out=whole)
    else:
        np.bitwise_and(numbers, 15, out=whole[..., : BLOCK // 2])
        np.right_shift(numbers, 4, out=whole[..., BLOCK // 2 :])
    factors = np.ascontiguousarray(scales).view(np.float16).squeeze(-1)
    return torch.from_numpy(whole).flatten(-2), torch.from_numpy(np.array(factors))
