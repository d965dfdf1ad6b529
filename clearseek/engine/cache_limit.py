"""How much memory the engine's cache may take: what a token needs of it, and what the machine can spare."""

import os
from dataclasses import dataclass
from functools import cached_property

import torch

from clearseek.config.errors import InputError
from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.formats import Format
from clearseek.engine.layout import cache_size, form_of_module
from clearseek.engine.mixed_formats import Formats
from clearseek.engine.runners import settled, why_plain
from clearseek.engine.speculation import Speculation
from clearseek.ledger.machine import available_memory_bytes
from clearseek.model.decoder import Decoder, Layer, MultiTokenModule

_SHARE = 0.5  # of what is free: a cache that grows is there twice for a moment, and activations come and go
_LEAST_BYTES = 256 << 20  # where little or nothing is free: answers come one after the other
_UNKNOWN_BYTES = 4 << 30  # where the system does not say what is free


@dataclass
class CacheLimit:
    """The bound of an engine's cache: `given` bytes, or what memory allows when it is first asked.

    `wanted` is the format that a draft model is kept in, as far as it can be. InputError where `given` holds no block.
    """

    model: Decoder
    form: Format | Formats
    dtype: torch.dtype
    num_slots: int
    speculation: Speculation | None
    wanted: Format | Formats
    given: int | None = None

    def __post_init__(self) -> None:
        if self.given is not None and self.given < self.block_bytes:
            raise InputError(
                f"a cache of {self.given / 2**30:.3g} GiB holds no block of {BLOCK_TOKENS} tokens, which takes "
                f"{self.block_bytes / 2**30:.3g} GiB of this model; allow it more (--cache-gib)"
            )

    @cached_property
    def block_bytes(self) -> int:
        """Of one block, in the caches of the model, of a multi-token module that guesses, and of a draft model."""
        guessing = self.speculation
        predicts = guessing is not None and guessing.kind == "mtp"
        count = bytes_per_token(self.model, self.form, self.dtype, predicts)
        if guessing is not None and (draft := guessing.draft) is not None:
            count += bytes_per_token(draft, settled(self.wanted, draft), self.dtype)
        return BLOCK_TOKENS * count

    @cached_property
    def num_bytes(self) -> int:
        """The most that it may take, never more than all slots with a whole context each could use."""
        context = self.model.config.max_position_embeddings
        useful = self.num_slots * ((context - 1) // BLOCK_TOKENS + 1) * self.block_bytes
        return min(useful, spare_bytes(self.model, self.form) if self.given is None else self.given)

    @property
    def num_blocks(self) -> int:
        """The most blocks, at least one."""
        return max(self.num_bytes // self.block_bytes, 1)


def bytes_per_token(
    model: Decoder, form: Format | Formats, dtype: torch.dtype, predicts: bool = False
) -> int:
    """What `runner_of` keeps of a token in all layers together, and in the module where it `predicts`."""
    layers = [layer for layer in model.layers if isinstance(layer, Layer)]
    further = [module.layer for module in list(model.mtp)[:predicts] if isinstance(module, MultiTokenModule)]
    if model.norm.weight.device.type != "cpu" or why_plain(model, form) is not None:
        return dtype.itemsize * sum(sum(layer.attention.cache_sizes) for layer in [*layers, *further])
    forms = [form] * len(layers) + [form_of_module(model, form)] * len(further)
    return sum(
        (4 if kept.name == "float32" else 2) * sum(cache_size(model.config, layer.layer_type))
        for layer, kept in zip([*layers, *further], forms, strict=True)
    )


def spare_bytes(model: Decoder, form: Format | Formats) -> int:
    """What a cache may take by default: half of what its device has free beside the weights.

    Those of `model` are there; what kernels will lay out of them in `form` comes off.
    """
    free = _free_bytes(model.norm.weight.device)
    if free is None:
        return _UNKNOWN_BYTES
    weights = sum(weight.numel() for weight in model.parameters())
    base = form if isinstance(form, Format) else form.base
    to_come = weights * base.bytes_per_weight if why_plain(model, form) is None else 0
    return max(int(_SHARE * (free - to_come)), _LEAST_BYTES)


def _free_bytes(device: torch.device) -> int | None:
    """What may still be taken on a device; of a machine's memory the share of one of its processes."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    free = available_memory_bytes()
    return None if free is None else free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
