"""A model wherever it lies: a directory in Hugging Face format, a run that means one, or a GGUF file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from clearseek.config.model import ModelConfig
from clearseek.model.checkpoint import load_config, load_model
from clearseek.model.decoder import Decoder
from clearseek.model.gguf.header import is_gguf, read_header
from clearseek.model.gguf.read import gguf_config, load_gguf
from clearseek.model.gguf.tokenizer_files import write_tokenizer


def load_source(
    source: Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Decoder:
    """The decoder of a resolved source to copy or write from, its parameters in `dtype`.

    They may be the file's own pages, see `mapped`. Raises InputError as its readers do.
    """
    if is_gguf(source):
        return load_gguf(source, dtype, device)
    return load_model(source, dtype, device, mapped=True)


def source_config(source: Path) -> ModelConfig:
    """The config of a resolved source; raises InputError naming file and key."""
    return gguf_config(read_header(source)) if is_gguf(source) else load_config(source)


@contextmanager
def tokenizer_directory(source: Path) -> Iterator[Path]:
    """A directory with the source's tokenizer files: its own, or one for a while with those of a GGUF file."""
    if not is_gguf(source):
        yield source
        return
    with TemporaryDirectory() as directory:
        write_tokenizer(read_header(source), Path(directory))
        yield Path(directory)
