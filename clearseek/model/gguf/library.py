"""The optional `gguf` library, imported at first use; and its absence as an error that says what to install."""

from typing import Any

from clearseek.config.errors import InputError


def gguf_library() -> Any:
    """The `gguf` module: names of tensors, the writer, and the types' arithmetic. Raises InputError without it."""
    try:
        import gguf
        import gguf.quants
    except ImportError as error:
        raise InputError(
            f"GGUF files need the gguf library ({error}); install it with: pip install 'clearseek[gguf]'"
        ) from error
    return gguf
