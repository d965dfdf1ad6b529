"""What a model is, read from headers alone: family, sizes, memory, licence. No weight is loaded.

Parameters are counted on a decoder without storage, so that what is counted is what would be loaded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from clearseek.config.model import ModelConfig
from clearseek.ledger.machine import memory_bytes
from clearseek.model.checkpoint import load_config
from clearseek.model.decoder import Decoder
from clearseek.model.families import config_to_published, pieces_of, unread_tensors, with_stored_mtp
from clearseek.model.gguf.header import GgufFile, is_gguf, read_header
from clearseek.model.gguf.read import gguf_config
from clearseek.model.licence import licence_of
from clearseek.model.resolve import CONFIG_FILE, resolve_model
from clearseek.model.stored_types import StoredType, stored_types

PROCESS_BYTES = 1e9  # Python, torch and what they keep
CACHE_TOKENS = 1000
# bytes of a weight: a block of q8_0 is 32 in 34 bytes, a super-block of q4_k 256 in 144, of fp8 128 x 128 with fp32
BYTES_PER_WEIGHT = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "fp8": 1.0 + 4 / 128**2,
    "q8_0": 34 / 32,
    "q4_k": 144 / 256,
}


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a model takes with its weights in a dtype, and whether that fits this machine's memory."""

    dtype: str
    weights_bytes: int
    cache_bytes: int
    fits: bool | None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What `clearseek info` tells. `cache_bytes` of each need is for 1,000 tokens.

    `unread`: how many stored tensors, by the pattern of their names, loading passes over and saving loses.
    """

    path: str
    format: str
    family: str
    architecture: str
    parameters: int
    active_parameters: int
    mtp_parameters: int
    layers: int
    heads: int
    key_value_heads: int | None
    hidden_size: int
    experts: int
    active_experts: int
    shared_experts: int
    context_length: int
    vocabulary: int
    stored: dict[str, int]
    stored_bytes: int
    unread: dict[str, int]
    memory: list[Need]
    machine_memory_bytes: int | None
    licence: str | None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers and words."""
        return asdict(self)


def inspect_model(model: Path) -> ModelInfo:
    """Describe a run, a checkpoint, a directory in Hugging Face format (also without weights) or a GGUF file.

    Raises InputError for what is none of these, or is one that we have not built.
    """
    if is_gguf(model):
        file = read_header(model)
        stored: dict[str, int] = {}
        for tensor in file.tensors.values():
            stored[tensor.type_name] = stored.get(tensor.type_name, 0) + tensor.num_bytes
        return _describe(model, "GGUF", gguf_config(file), stored, _gguf_licence(file))
    source = model if (model / CONFIG_FILE).is_file() else resolve_model(model)
    config = load_config(source)
    kind, tensors = "Hugging Face directory", list(stored_types(source))
    names = [tensor.tensor.removesuffix("_scale_inv") for tensor in tensors]
    if names:
        config = with_stored_mtp(config, names)
    unread = unread_tensors(config, names)
    return _describe(source, kind, config, _stored(tensors), licence_of(source), unread)


def count_parameters(config: ModelConfig, decoder: Decoder) -> tuple[int, int, int]:
    """Parameters in all, those that one token passes, and those of multi-token modules, which neither counts."""
    state = decoder.state_dict()
    total, active, mtp = 0, 0.0, 0
    for piece in pieces_of(config):
        if piece.kind != "own":
            continue
        size = piece.of(state[piece.ours]).numel()
        if piece.ours.startswith("mtp."):
            mtp += size
            continue
        total += size
        is_routed = ".experts." in piece.published
        active += size * config.num_experts_per_token / config.num_routed_experts if is_routed else size
    return total, round(active), mtp


def cache_elements(decoder: Decoder) -> int:
    """Numbers that one token keeps in the cache of all layers."""
    return sum(size for layer in decoder.layers for size in layer.attention.cache_sizes)  # type: ignore[union-attr]


def _describe(
    path: Path,
    kind: str,
    config: ModelConfig,
    stored: Mapping[str, int],
    licence: str | None,
    unread: Mapping[str, int] = MappingProxyType({}),
) -> ModelInfo:
    with torch.device("meta"):
        decoder = Decoder(config)
    total, active, mtp = count_parameters(config, decoder)
    elements, machine = cache_elements(decoder), memory_bytes()
    return ModelInfo(
        path=str(path),
        format=kind,
        family=config.family,
        architecture=config_to_published(config)["architectures"][0],
        parameters=total,
        active_parameters=active,
        mtp_parameters=mtp,
        layers=config.num_layers,
        heads=config.num_heads,
        key_value_heads=None if config.is_latent else config.kv_heads,
        hidden_size=config.hidden_size,
        experts=config.num_routed_experts,
        active_experts=config.num_experts_per_token,
        shared_experts=config.num_shared_experts,
        context_length=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        stored=dict(stored),
        stored_bytes=sum(stored.values()),
        unread=dict(unread),
        memory=[_need(dtype, total, elements, machine) for dtype in BYTES_PER_WEIGHT],
        machine_memory_bytes=machine,
        licence=licence,
    )


def _need(dtype: str, parameters: int, elements: int, machine: int | None) -> Need:
    """The cache is fp32 beside fp32 weights, else 16 bits."""
    weights = round(parameters * BYTES_PER_WEIGHT[dtype])
    cache = CACHE_TOKENS * elements * (4 if dtype == "float32" else 2)
    return Need(
        dtype, weights, cache, None if machine is None else weights + cache + PROCESS_BYTES <= machine
    )


def _stored(tensors: Iterable[StoredType]) -> dict[str, int]:
    """Bytes of a directory's tensors by their type."""
    stored: dict[str, int] = {}
    for tensor in tensors:
        stored[tensor.name] = stored.get(tensor.name, 0) + tensor.num_bytes
    return stored


def _gguf_licence(file: GgufFile) -> str | None:
    licence = file.metadata.get("general.license")
    return licence if isinstance(licence, str) else None
