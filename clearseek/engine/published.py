"""`clearseek.load` and `clearseek.save`: a model from a directory in Hugging Face format, and back into one."""

import warnings
from pathlib import Path

import torch

from clearseek.config.errors import InputError, InputWarning
from clearseek.engine.defaults import default_settings
from clearseek.engine.loaded import Model
from clearseek.engine.mixed_formats import read_formats
from clearseek.model.checkpoint import save_model, write_directory
from clearseek.model.device import choose_device
from clearseek.model.gguf.header import is_gguf
from clearseek.model.gguf.read import open_gguf
from clearseek.model.kept_code import leave_code, why_not_transformers
from clearseek.model.peft_format import read_adapter
from clearseek.model.resolve import resolve_source
from clearseek.model.source import load_source, tokenizer_directory
from clearseek.text.kept_files import leave_generation_config
from clearseek.text.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load(
    path: str | Path,
    dtype: str = "float32",
    device: str = "cpu",
    adapter: str | Path | None = None,
    format: str | None = None,
) -> Model:
    """Open a run, one of its checkpoints, a Hugging Face directory or a GGUF file; `adapter`, in PEFT's, is merged in.

    Weights and activations are in `dtype`; `device` is auto, cpu, cuda, cuda:N or mps. `format` is how `generate` keeps
    weights, as `--format` on the command line ("int8", "int4,head=int8"); without, in `dtype`. Blocks of a GGUF file
    stay as they are where they suit it. Raises InputError for names that are not known, for what is not there, where
    weights, tokenizer and adapter do not belong together, and where weights can't be kept so.
    """
    wanted, form = _dtype(dtype), None if format is None else read_formats(format)
    chosen, source = choose_device(device), resolve_source(Path(path))
    with tokenizer_directory(source) as files:
        tokenizer, defaults = Tokenizer.load(files), default_settings(files)
    decoder = load_source(source, wanted, chosen.device).eval()
    tokenizer.require_room(decoder.config.vocab_size, source)
    if adapter is not None:
        read_adapter(Path(adapter), decoder.config).to(chosen.device).merge_into(decoder)
    elif form is not None and is_gguf(source) and chosen.device.type == "cpu":
        decoder.stored = open_gguf(source).stored
    return Model(decoder, tokenizer, source, wanted, defaults, form)


def save(model: Model, path: str | Path, dtype: str | None = None) -> None:
    """Write a model as a Hugging Face directory, in `dtype` (default: its own), its tokenizer's files as they were.

    Code that the model was published with goes along, unread. Warns (InputWarning) where transformers alone can't open
    the directory. Raises InputError for an unknown dtype and for a directory that holds something, RunError where the
    disk refuses.
    """
    wanted = None if dtype is None else _dtype(dtype)
    path, tokenizer = Path(path), model.tokenizer
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there already; give the name of a new directory")
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    with write_directory(path) as directory:
        save_model(model.decoder, directory, **ids, dtype=wanted)
        tokenizer.save(directory)
        leave_generation_config(model.directory, directory)
        leave_code(model.directory, directory)
    if note := why_not_transformers(model.decoder.config.family, model.directory):
        warnings.warn(f"{path}: {note}", InputWarning, stacklevel=2)


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not known; known ones: {', '.join(DTYPES)}")
    return DTYPES[name]
