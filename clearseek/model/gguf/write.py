"""A decoder and its tokenizer's files into one GGUF file, tensor by tensor, whole or not there."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearseek.config.errors import InputError, RunError
from clearseek.config.model import ModelConfig
from clearseek.model.decoder import Decoder
from clearseek.model.families import config_to_published
from clearseek.model.gguf.architectures import architecture_of
from clearseek.model.gguf.library import gguf_library
from clearseek.model.gguf.metadata import config_keys, window_of
from clearseek.model.gguf.rope import ROPE_FREQUENCIES, rope_frequencies, rounds_ramp
from clearseek.model.gguf.storage import (
    DTYPES,
    encode,
    is_kept_wider,
    num_bytes,
    stored_type,
    type_number,
)
from clearseek.model.gguf.tensors import Entry, entries_of, shape_of, view_of

_FLOATS = frozenset({"attention.layer_norm_rms_epsilon", "attention.value_scale", "expert_weights_scale"})
_QUANTIZATION_VERSION = 2
_WITHOUT_QUERY_LATENT = (26, 27)


@dataclass(frozen=True, slots=True)
class _Planned:
    """One tensor to write: its name, shape and type, and how its fp32 weights are had."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    is_wider: bool  # than was wanted, since its rows are no whole blocks
    wanted: str
    weights: Callable[[], np.ndarray]


def write_gguf(
    model: Decoder,
    path: Path,
    *,
    dtype: str,
    name: str,
    vocabulary: Mapping[str, Any],
    licence: str | None = None,
    dtype_of: Callable[[str], str] | None = None,
    each: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Write `model` to `path` with its matrices in `dtype` (a key of DTYPES) and `vocabulary`'s keys as they are.

    `dtype_of` has each matrix's own dtype, by our parameter's name.
    `each` hears how many of how many bytes are written. Returns what a user should know of the file, one line each.
    Raises InputError for a model that GGUF has no place for, RunError when the disk refuses.
    """
    gguf = gguf_library()
    config = model.config
    published = config_to_published(config)
    if dtype == "mxfp4" and not config.num_routed_experts:
        raise InputError("--dtype mxfp4 is for experts, and this model has none; use q4_k or q4_0")
    keys, planned = config_keys(published), list(_plan(model, published, dtype, dtype_of))
    architecture = architecture_of(config.family).name
    with _whole_or_not_there(path) as partial:
        writer = gguf.GGUFWriter(partial, architecture)
        writer.add_type("model")
        writer.add_name(name)
        if licence:
            writer.add_license(licence)
        writer.add_file_type(DTYPES[dtype][1])
        if any(tensor.type_name.startswith(("Q", "MX")) for tensor in planned):
            writer.add_quantization_version(_QUANTIZATION_VERSION)
        for key, value in keys.items():
            _add(writer, f"{architecture}.{key}", float(value) if key in _FLOATS else value)
        for key, value in vocabulary.items():
            _add(writer, key, value)
        _write_tensors(writer, planned, each)
    return [*_widened(planned), *_left_out(config, published)]


def _plan(
    model: Decoder, published: Mapping[str, Any], dtype: str, dtype_of: Callable[[str], str] | None
) -> Iterator[_Planned]:
    config, state = model.config, model.state_dict()
    frequencies = rope_frequencies(published)
    if frequencies is not None:
        yield _Planned(ROPE_FREQUENCIES, frequencies.shape, "F32", False, "F32", lambda: frequencies)
    head = "token_embd.weight" if config.tie_word_embeddings else "output.weight"
    for entry in entries_of(config):
        first = entry.pieces[0]
        shape = shape_of(config, entry, first.of(state[first.ours]))
        wanted = DTYPES[dtype_of(first.ours) if dtype_of else dtype][0]
        gives_logits = entry.name == head and dtype_of is None  # each has its own type then
        type_name = stored_type(entry.name, shape, wanted, gives_logits)
        is_wider = type_name not in (wanted, "F32") and not is_kept_wider(entry.name, wanted, gives_logits)
        yield _Planned(entry.name, shape, type_name, is_wider, wanted, _reader(config, entry, shape, state))


def _reader(
    config: ModelConfig, entry: Entry, shape: tuple[int, ...], state: Mapping[str, Tensor]
) -> Callable[[], np.ndarray]:
    def weights() -> np.ndarray:
        views = [view_of(config, entry.layout, piece.of(state[piece.ours])) for piece in entry.pieces]
        joined = torch.stack(views) if entry.is_stacked else views[0]
        array: np.ndarray = joined.detach().to("cpu", torch.float32).reshape(shape).numpy()
        return array

    return weights


def _write_tensors(writer: Any, planned: list[_Planned], each: Callable[[int, int], None]) -> None:
    total = sum(num_bytes(tensor.shape, tensor.type_name) for tensor in planned)
    for tensor in planned:
        size = num_bytes(tensor.shape, tensor.type_name)
        number = type_number(tensor.type_name)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    done = 0
    for tensor in planned:
        writer.write_tensor_data(_encoded(tensor))
        done += num_bytes(tensor.shape, tensor.type_name)
        each(done, total)
    writer.close()


def _encoded(tensor: _Planned) -> np.ndarray:
    """The tensor as it is stored; InputError where its weights don't fit, such as 70,000 into F16."""
    weights = tensor.weights()
    if not np.isfinite(weights).all():
        raise InputError(f"{tensor.name} holds nan or inf; a model like that can't be exported")
    stored = encode(weights, tensor.type_name)
    if tensor.type_name == "F16" and not np.isfinite(stored).all():
        raise InputError(f"{tensor.name} has weights beyond float16's 65504; use --dtype bf16 or f32")
    return stored


def _add(writer: Any, key: str, value: Any) -> None:
    """A key of the type that llama.cpp reads: whole numbers are unsigned 32-bit, others float32."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _widened(planned: list[_Planned]) -> list[str]:
    """A line for each type that rows which are no whole blocks took instead."""
    others: dict[tuple[str, str], list[str]] = {}
    for tensor in planned:
        if tensor.is_wider:
            others.setdefault((tensor.type_name, tensor.wanted), []).append(tensor.name)
    return [
        f"{len(names)} tensors are {type_name}, as their rows are not whole blocks of {wanted} ({names[0]}, …)"
        for (type_name, wanted), names in others.items()
    ]


def _left_out(config: ModelConfig, published: Mapping[str, Any]) -> list[str]:
    """A line for each thing that llama.cpp does not read or does otherwise."""
    notes = []
    if config.num_mtp_layers:
        notes.append("multi-token prediction is left out: llama.cpp does not read it")
    if window := window_of(published):
        notes.append(f"llama.cpp has no sliding window here; the context is cut to its {window:,} tokens")
    if rounds_ramp(published):
        notes.append(
            "llama.cpp rounds the bounds of YaRN's ramp, which this model does not: its logits will differ slightly"
        )
    if config.is_latent and config.latent_norm_eps != config.rms_norm_eps:
        notes.append(
            f"llama.cpp normalises latents with rms_norm_eps ({config.rms_norm_eps:g}), where this model has "
            f"{config.latent_norm_eps:g}: its logits will differ slightly"
        )
    if config.is_latent and config.q_lora_rank is None and config.num_layers not in _WITHOUT_QUERY_LATENT:
        notes.append(
            "llama.cpp reads latent attention without a query latent in models of 26 or 27 layers only"
        )
    return notes


@contextmanager
def _whole_or_not_there(path: Path) -> Iterator[Path]:
    """A path to write, which becomes `path` when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise RunError(f"{path} can't be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
