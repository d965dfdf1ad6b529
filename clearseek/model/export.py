"""A model rewritten for others: a directory in Hugging Face format in another dtype, or a GGUF file, and back."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from clearseek.config.errors import InputError
from clearseek.model.checkpoint import GENERATION_FILE, save_model
from clearseek.model.decoder import Decoder
from clearseek.model.directory import write_directory
from clearseek.model.gguf.architectures import architecture_of
from clearseek.model.gguf.header import is_gguf, read_header
from clearseek.model.gguf.library import gguf_library
from clearseek.model.gguf.storage import DTYPES
from clearseek.model.gguf.tokenizer_files import token_ids, write_tokenizer
from clearseek.model.gguf.vocabulary import vocabulary_keys
from clearseek.model.gguf.write import write_gguf
from clearseek.model.kept_code import leave_code, why_not_transformers
from clearseek.model.licence import licence_of
from clearseek.model.resolve import CONFIG_FILE, resolve_source
from clearseek.model.source import load_source, source_config
from clearseek.model.stored import read_json
from clearseek.model.stored_types import stored_types
from clearseek.model.written import FP8, check_fp8

DtypesOf = Callable[[Decoder], Callable[[str], str]]
HF_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "fp8": FP8}
_STORED = {"BF16": torch.bfloat16, "F16": torch.float16}
# what stands beside the weights and goes along
_ALONG = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenization_*.py",
    "chat_template.jinja",
    "chat_template.json",
    GENERATION_FILE,
    "LICENSE*",
    "NOTICE*",
)
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, its size in bytes, and what a user should know of it, one line each."""

    path: Path
    num_bytes: int
    notes: list[str]


def export_model(
    model: Path,
    to: Literal["hf", "gguf"],
    dtype: str | None = None,
    out: Path | None = None,
    each: Callable[[int, int], None] = lambda done, total: None,
    dtypes: DtypesOf | None = None,
) -> Exported:
    """Write a run's, a directory's or a GGUF file's model as `to`, in `dtype` (default: as stored; bf16 for GGUF).

    `each` hears how many of how many bytes of a GGUF file are written. `dtypes` says of a model a GGUF dtype by each
    parameter's name; `dtype` is what they are called then. Raises InputError for a dtype that the format has not got,
    or a place that is taken; OSError or RunError when the disk refuses.
    """
    known = tuple(HF_DTYPES if to == "hf" else DTYPES)
    if dtype is not None and dtype not in known and (dtypes is None or to == "hf"):
        raise InputError(f"--dtype {dtype} does not belong to --to {to}; known ones: {', '.join(known)}")
    source = resolve_source(model)
    out = out or _default_out(model, to, dtype or "bf16")
    if out.exists():
        raise InputError(f"{out}: is there already; name another place with --out, or remove it")
    if to == "hf":
        return _export_hf(source, HF_DTYPES[dtype] if dtype else stored_dtype(source), out)
    return _export_gguf(
        source, dtype or "bf16", model.stem if is_gguf(model) else model.resolve().name, out, each, dtypes
    )


def stored_dtype(source: Path) -> torch.dtype:
    """The dtype that holds a source's weights without loss: as stored for 16-bit ones, else float32."""
    if is_gguf(source):
        kinds = {tensor.type_name for tensor in read_header(source).tensors.values() if len(tensor.shape) > 1}
    else:
        kinds = {tensor.name for tensor in stored_types(source) if tensor.dimensions > 1}
    return _STORED.get(kinds.pop(), torch.float32) if len(kinds) == 1 else torch.float32


def _default_out(model: Path, to: str, dtype: str) -> Path:
    """A name beside nothing else: in the working directory, after the model."""
    name = model.stem if is_gguf(model) else model.resolve().name
    words = re.sub(r"\W+", "-", dtype.upper())
    return Path(f"{name}-hf" if to == "hf" else f"{name}-{words}.gguf")


def _export_hf(source: Path, dtype: torch.dtype, out: Path) -> Exported:
    if dtype == FP8:
        check_fp8(source_config(source))  # before the weights are read
    decoder = load_source(source, stored_dtype(source) if dtype == FP8 else dtype)
    file = read_header(source) if is_gguf(source) else None
    ids = token_ids(file) if file else _ids(source)
    with write_directory(out) as directory:
        save_model(
            decoder,
            directory,
            bos_id=ids["bos_token_id"],
            eos_id=ids["eos_token_id"],
            pad_id=ids["pad_token_id"],
            dtype=dtype,
        )
        if file:
            write_tokenizer(file, directory)
        else:
            leave_code(source, directory)
        for pattern in () if file else _ALONG:
            for path in sorted(source.glob(pattern)):
                shutil.copyfile(path, directory / path.name)
    note = why_not_transformers(decoder.config.family, source)
    return Exported(out, sum(path.stat().st_size for path in out.iterdir()), [note] if note else [])


def _ids(source: Path) -> dict[str, Any]:
    config = read_json(source / CONFIG_FILE)
    return {name: config.get(name) for name in _IDS}


def _export_gguf(
    source: Path,
    dtype: str,
    name: str,
    out: Path,
    each: Callable[[int, int], None],
    dtypes: DtypesOf | None,
) -> Exported:
    gguf_library()  # its absence, and a family that GGUF has not got, are said before the weights are read
    config = source_config(source)
    architecture_of(config.family)
    vocabulary, notes = _vocabulary(source, config.vocab_size)
    decoder: Decoder = load_source(source, stored_dtype(source))
    licence = read_header(source).metadata.get("general.license") if is_gguf(source) else licence_of(source)
    dtype_of = None if dtypes is None else dtypes(decoder)
    notes += write_gguf(
        decoder, out, dtype=dtype_of("") if dtype_of else dtype, name=name, vocabulary=vocabulary, licence=licence,
        dtype_of=dtype_of, each=each,
    )  # fmt: skip
    return Exported(out, out.stat().st_size, notes)


def _vocabulary(source: Path, vocab_size: int) -> tuple[dict[str, Any], list[str]]:
    if not is_gguf(source):
        return vocabulary_keys(source, vocab_size)
    metadata = read_header(source).metadata
    return {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}, []
