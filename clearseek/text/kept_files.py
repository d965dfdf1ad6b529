"""The files beside a model's weights that stay as they were published when its weights change."""

import shutil
from pathlib import Path

from clearseek.text.chat import PLAIN_TEMPLATE
from clearseek.text.tokenizer import Tokenizer

GENERATION_FILE = "generation_config.json"
TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", TEMPLATE_FILE, "chat_template.json",
)  # fmt: skip
_TEMPLATES = "additional_chat_templates"


def leave_tokenizer(tokenizer: Tokenizer, source: Path | None, directory: Path) -> None:
    """Write a tokenizer into a model's directory: the files of `source`, where it was read, byte for byte.

    A source without a chat template gets the one that the model was trained with. Raises OSError, or RunError as
    `Tokenizer.save`.
    """
    tokenizer.save(directory)
    if source is None:
        return
    if tokenizer.chat.source != PLAIN_TEMPLATE:
        (directory / TEMPLATE_FILE).unlink(missing_ok=True)
    for name in TOKENIZER_FILES:
        _copy(source / name, directory / name)
    if (source / _TEMPLATES).is_dir():
        shutil.copytree(source / _TEMPLATES, directory / _TEMPLATES, dirs_exist_ok=True)


def leave_generation_config(source: Path, directory: Path) -> None:
    """Copy what the publisher says of generating (all tokens that end an answer, how to sample). Raises OSError."""
    _copy(source / GENERATION_FILE, directory / GENERATION_FILE)


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        shutil.copyfile(source, target)
