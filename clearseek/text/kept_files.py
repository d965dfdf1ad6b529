"""What a publisher says beside weights and tokenizer, kept as it is when the weights change."""

import shutil
from pathlib import Path

GENERATION_FILE = "generation_config.json"


def leave_generation_config(source: Path, directory: Path) -> None:
    """Copy all tokens that end an answer, how to sample and the like, where there is such a file. Raises OSError."""
    if (source / GENERATION_FILE).is_file():
        shutil.copyfile(source / GENERATION_FILE, directory / GENERATION_FILE)
