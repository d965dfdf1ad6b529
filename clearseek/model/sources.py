"""A checkpoint's tensors as floats under their published names, however they are stored.

`open_sources` hides what quantisation does to a checkpoint: the names that it adds are gone, and every
source reads rows of floats. A method is a function from stored tensors to sources, registered in `QUANTISED`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from clearseek.config.errors import InputError
from clearseek.model.quantised import Block, dequantise_block_fp8, dequantise_mxfp4, num_blocks
from clearseek.model.stored import FLOATS, StoredTensors

_SCALES = frozenset({"F32", "BF16", "F8_E8M0"})


class Source(Protocol):
    """One published tensor, to be read by rows: parts of its first dimension."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The published shape, of floats."""

    @property
    def step(self) -> int:
        """Rows can be read from multiples of this only."""

    def rows(self, start: int, stop: int) -> Tensor:
        """`tensor[start:stop]` in a floating-point dtype, on the CPU."""


@dataclass(frozen=True)
class Plain:
    """A tensor stored as it is."""

    file: StoredTensors
    name: str
    step: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        return self.file.entries[self.name].shape

    @property
    def dtype(self) -> str:
        """safetensors' name of what it is stored in."""
        return self.file.entries[self.name].dtype

    def rows(self, start: int, stop: int) -> Tensor:
        """As stored."""
        return self.file.rows(self.name, start, stop)


@dataclass(frozen=True)
class BlockFp8:
    """fp8 [..., N, K] with a scale for each block of its last two dimensions."""

    weight: Plain
    scales: Plain
    block: Block

    @property
    def shape(self) -> tuple[int, ...]:
        """As the fp8 tensor's."""
        return self.weight.shape

    @property
    def step(self) -> int:
        """A row of blocks, or one matrix of a stack."""
        return self.block[0] if len(self.shape) == 2 else 1

    def rows(self, start: int, stop: int) -> Tensor:
        """In fp32."""
        scales = self.scales.rows(start // self.step, -(-stop // self.step))
        return dequantise_block_fp8(self.weight.rows(start, stop), scales, self.block)


@dataclass(frozen=True)
class Mxfp4:
    """gpt-oss's experts: blocks [E, out, G, B] and scales [E, out, G], published as [E, in, out]."""

    blocks: Plain
    scales: Plain
    step: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Two values in every byte, and transposed, as `transformers` has it."""
        experts, outputs, groups, size = self.blocks.shape
        return experts, 2 * groups * size, outputs

    def rows(self, start: int, stop: int) -> Tensor:
        """In fp32."""
        return dequantise_mxfp4(self.blocks.rows(start, stop), self.scales.rows(start, stop)).mT


Stored = Mapping[str, Plain]
Settings = Mapping[str, Any]


def open_sources(stored: Stored, quantisation: Settings | None, directory: Path) -> dict[str, Source]:
    """Every float tensor of a checkpoint; `quantisation` is config.json's checked
    `quantization_config`, if any.

    Raises InputError naming the tensor for scales that don't fit it or are of another dtype.
    """
    sources: dict[str, Source] = {}
    if quantisation is not None:
        sources = QUANTISED[quantisation["quant_method"]](stored, quantisation, directory)
    used = {part.name for source in sources.values() for part in _parts(source)}
    for name, plain in stored.items():
        if name not in used:
            sources[name] = plain
    return sources


def check_float(name: str, source: Source, directory: Path) -> None:
    """Raise InputError where a tensor holds other than floats and nothing says what they stand for."""
    if isinstance(source, Plain) and source.dtype not in FLOATS:
        raise InputError(
            f"{directory}: {name} is stored as {source.dtype}; quantised weights are not supported without a "
            "quantization_config that says how to read them, convert them to bfloat16 first"
        )


def check_quantisation(settings: Any, path: Path) -> None:
    """Raise InputError unless a `quantization_config` is of a kind that `QUANTISED` reads."""
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    if not isinstance(method, str) or method not in QUANTISED:
        raise InputError(
            f"{path}: quantization_config with quant_method = {method!r} is not supported; known ones: "
            f"{', '.join(QUANTISED)}. Convert the weights to bfloat16"
        )
    if method == "fp8":
        _block(settings, path)


def _block_fp8(stored: Stored, settings: Settings, directory: Path) -> dict[str, Source]:
    """DeepSeek-V3's: NAME in fp8 beside NAME_scale_inv."""
    block = _block(settings, directory / "config.json")
    found: dict[str, Source] = {}
    for name, scales in stored.items():
        weight = stored.get(name.removesuffix("_scale_inv"))
        if weight is None or weight is scales:
            continue
        if weight.dtype != "F8_E4M3" or scales.dtype not in _SCALES or len(weight.shape) < 2:
            raise InputError(
                f"{directory}: {weight.name} is stored as {weight.dtype} with scales as {scales.dtype}; "
                f"matrices in F8_E4M3 with scales in {' or '.join(sorted(_SCALES))} are supported"
            )
        _check_scales(scales, num_blocks(weight.shape, block), weight, directory)
        found[weight.name] = BlockFp8(weight, scales, block)
    return found


def _mxfp4(stored: Stored, settings: Settings, directory: Path) -> dict[str, Source]:
    """gpt-oss's: NAME_blocks and NAME_scales, both bytes."""
    found: dict[str, Source] = {}
    for name, blocks in stored.items():
        original = name.removesuffix("_blocks")
        scales = stored.get(f"{original}_scales")
        if original == name or scales is None:
            continue
        if (blocks.dtype, scales.dtype) != ("U8", "U8") or len(blocks.shape) != 4:
            raise InputError(
                f"{directory}: {name} is {list(blocks.shape)} in {blocks.dtype} with scales in {scales.dtype}; "
                "MXFP4 is four dimensions of U8, with scales in U8"
            )
        _check_scales(scales, blocks.shape[:-1], blocks, directory)
        found[original] = Mxfp4(blocks, scales)
    return found


QUANTISED: dict[str, Callable[[Stored, Settings, Path], dict[str, Source]]] = {
    "fp8": _block_fp8,
    "mxfp4": _mxfp4,
}


def _block(settings: Settings, path: Path) -> Block:
    size = settings.get("weight_block_size")
    if isinstance(size, list) and len(size) == 2 and all(type(n) is int and 0 < n <= 2**16 for n in size):
        return size[0], size[1]
    raise InputError(
        f"{path}: quantization_config.weight_block_size = {size!r} is not supported; fp8 needs rows and columns "
        "of a block, such as [128, 128]"
    )


def _check_scales(scales: Plain, expected: tuple[int, ...], weight: Plain, directory: Path) -> None:
    if scales.shape != expected:
        raise InputError(
            f"{directory}: {scales.name} is {list(scales.shape)}, but {weight.name} of {list(weight.shape)} "
            f"makes it {list(expected)}"
        )


def _parts(source: Source) -> Iterable[Plain]:
    """The stored tensors that a source is made of."""
    if isinstance(source, BlockFp8):
        return source.weight, source.scales
    if isinstance(source, Mxfp4):
        return source.blocks, source.scales
    return ()
