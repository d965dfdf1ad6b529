"""The tokenizer of a GGUF file as the files of a directory.

A whole tokenizer.json in the file comes first; files of others are read by their tokens, merges or scores, and by the
name of how they split text.
"""

import json
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.model.gguf.header import GgufFile
from clearseek.model.gguf.sentencepiece import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    sentencepiece_json,
)
from clearseek.model.gguf.splits import SPLITS, WHOLE_FIRST, pre_tokenizer_of
from clearseek.model.gguf.vocabulary import SPECIAL, WHOLE_TOKENIZER

_ADDED = (UNKNOWN, CONTROL, USER_DEFINED)
_AS_IT_STANDS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def write_tokenizer(file: GgufFile, directory: Path) -> None:
    """The tokenizer of a GGUF file as tokenizer.json, tokenizer_config.json and chat_template.jinja.

    Raises InputError for a vocabulary that is not BPE or splits text in an unknown way.
    """
    metadata = file.metadata
    whole = metadata.get(WHOLE_TOKENIZER)
    tokenizer = whole if isinstance(whole, str) else json.dumps(_tokenizer_json(file), ensure_ascii=False)
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
        "clean_up_tokenization_spaces": False,
    }
    for name, key in SPECIAL.items():
        number = metadata.get(f"tokenizer.ggml.{key}")
        if isinstance(number, int) and 0 <= number < len(tokens):
            config[name] = tokens[number]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    if isinstance(metadata.get("tokenizer.chat_template"), str):
        (directory / "chat_template.jinja").write_text(metadata["tokenizer.chat_template"], encoding="utf-8")


def token_ids(file: GgufFile) -> dict[str, int | None]:
    """Ids of the special tokens of a GGUF file, under config.json's names."""
    found = {name: file.metadata.get(f"tokenizer.ggml.{key}") for name, key in SPECIAL.items()}
    return {f"{name}_id": number if isinstance(number, int) else None for name, number in found.items()}


def _tokenizer_json(file: GgufFile) -> dict[str, Any]:
    """A tokenizer.json from tokens, their types, and merges or scores."""
    kind = file.metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise InputError(
            f"{file.path}: tokenizer.ggml.model {kind!r} is not supported; known ones: gpt2, llama"
        )
    tokens = _list(file, "tokens", str)
    types = _list(file, "token_type", int, len(tokens), NORMAL)
    parts = _characters(file, tokens, types) if kind == "llama" else _bytes(file, tokens, types)
    added = [
        {"id": number, "content": token, "special": kind != USER_DEFINED, **_AS_IT_STANDS}
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in _ADDED
    ]
    return {"version": "1.0", "added_tokens": added, **parts}


def _bytes(file: GgufFile, tokens: list[Any], types: list[Any]) -> dict[str, Any]:
    split = file.metadata.get("tokenizer.ggml.pre", "default")
    if split not in SPLITS:
        raise InputError(
            f"{file.path}: tokenizer.ggml.pre {split!r} is not supported; known ones: {', '.join(SPLITS)}"
        )
    # added tokens too: the library gives one that the vocabulary lacks an id of its own choice
    vocab = {token: number for number, token in enumerate(tokens) if types[number] != UNUSED}
    merges = [merge.split(" ", 1) for merge in _list(file, "merges", str)]
    return {
        "normalizer": {"type": "NFC"} if split in ("qwen2", "deepseek-r1-qwen") else None,
        "pre_tokenizer": pre_tokenizer_of(split),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": split in WHOLE_FIRST},
    }


def _characters(file: GgufFile, tokens: list[Any], types: list[Any]) -> dict[str, Any]:
    scores = _list(file, "scores", float, len(tokens))
    space_first = bool(file.metadata.get("tokenizer.ggml.add_space_prefix", True))
    return sentencepiece_json(tokens, types, scores, space_first)


def _list(file: GgufFile, name: str, kind: type, length: int | None = None, default: Any = None) -> list[Any]:
    """A list of the vocabulary; InputError where it is absent, holds other things, or is not of `length`."""
    values = file.metadata.get(f"tokenizer.ggml.{name}")
    if values is None and default is not None and length is not None:
        return [default] * length
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise InputError(f"{file.path}: tokenizer.ggml.{name} has to be a list of {kind.__name__}")
    if length is not None and len(values) != length:
        raise InputError(f"{file.path}: tokenizer.ggml.{name} has {len(values)} entries for {length} tokens")
    return values
