"""`clearseek.load` and `clearseek.save`: a model from a directory in Hugging Face format, and back into one."""

import warnings
from pathlib import Path

import torch

from clearseek.config.errors import InputError, InputWarning
from clearseek.engine.loaded import Model
from clearseek.model.checkpoint import load_model, resolve_model, save_model, write_directory
from clearseek.model.device import choose_device
from clearseek.model.kept_code import leave_code, why_not_transformers
from clearseek.model.peft_format import read_adapter
from clearseek.text.kept_files import leave_generation_config
from clearseek.text.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load(
    path: str | Path, dtype: str = "float32", device: str = "cpu", adapter: str | Path | None = None
) -> Model:
    """Open a run, one of its checkpoints or a Hugging Face directory; `adapter`, in PEFT's format, is merged in.

    Weights and activations are in `dtype`; `device` is auto, cpu, cuda, cuda:N or mps. Raises InputError for names that
    are not known, for what is not there, and where weights, tokenizer and adapter do not belong together.
    """
    wanted = _dtype(dtype)
    chosen, directory = choose_device(device), resolve_model(Path(path))
    tokenizer = Tokenizer.load(directory)
    decoder = load_model(directory, wanted, chosen.device, mapped=True).eval()
    tokenizer.require_room(decoder.config.vocab_size, directory)
    if adapter is not None:
        read_adapter(Path(adapter), decoder.config).to(chosen.device).merge_into(decoder)
    return Model(decoder, tokenizer, directory, wanted)


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
