"""A tokenizer directory as the keys of a GGUF file, and back.

Beside llama.cpp's own keys the whole tokenizer.json goes into `tokenizer.huggingface.json`, a key of GGUF's
specification, so that whoever reads that key splits text as we do. Read back it comes first; files of others are read
by their tokens, merges and the name of their split.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.model.gguf.header import GgufFile
from clearseek.model.gguf.splits import SPLITS, WHOLE_FIRST, pre_tokenizer_of, split_name
from clearseek.model.stored import read_json

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_SPECIAL = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "padding_token_id"}
_WHOLE = "tokenizer.huggingface.json"


def vocabulary_keys(directory: Path, vocab_size: int) -> tuple[dict[str, Any], list[str]]:
    """GGUF's keys of a directory's tokenizer, and what a user should know, one line each.

    `vocab_size` is the model's; ids that no token has are filled up. Raises InputError for a tokenizer that is not
    byte-level BPE.
    """
    path = directory / "tokenizer.json"
    tokenizer = read_json(path)
    config_path = directory / "tokenizer_config.json"
    config = read_json(config_path) if config_path.is_file() else {}
    _check_kind(path, tokenizer)
    tokens, types = _tokens(path, tokenizer, vocab_size)
    name = split_name(tokenizer.get("pre_tokenizer"))
    keys = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name or "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [_merge(merge) for merge in tokenizer["model"]["merges"]],
        **_special_ids(tokenizer, config, directory),
        "tokenizer.ggml.add_bos_token": _begins_with_bos(tokenizer, config),
        _WHOLE: json.dumps(tokenizer, ensure_ascii=False),
    }
    template = _template(directory, config)
    if template:
        keys["tokenizer.chat_template"] = template
    return keys, [] if name else [
        "llama.cpp has no name for how this tokenizer splits text: it will split some texts otherwise than clearseek"
    ]


def write_tokenizer(file: GgufFile, directory: Path) -> None:
    """The tokenizer of a GGUF file as tokenizer.json, tokenizer_config.json and chat_template.jinja.

    Raises InputError for a vocabulary that is not byte-level BPE or splits text in an unknown way.
    """
    metadata = file.metadata
    whole = metadata.get(_WHOLE)
    tokenizer = whole if isinstance(whole, str) else json.dumps(_tokenizer_json(file), ensure_ascii=False)
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
        "clean_up_tokenization_spaces": False,
    }
    for name, key in _SPECIAL.items():
        number = metadata.get(f"tokenizer.ggml.{key}")
        if isinstance(number, int) and number < len(tokens):
            config[name] = tokens[number]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    if isinstance(metadata.get("tokenizer.chat_template"), str):
        (directory / "chat_template.jinja").write_text(metadata["tokenizer.chat_template"], encoding="utf-8")


def token_ids(file: GgufFile) -> dict[str, int | None]:
    """bos, eos and pad ids of a GGUF file, under config.json's names."""
    found = {name: file.metadata.get(f"tokenizer.ggml.{key}") for name, key in _SPECIAL.items()}
    return {f"{name}_id": number if isinstance(number, int) else None for name, number in found.items()}


def _check_kind(path: Path, tokenizer: Mapping[str, Any]) -> None:
    model = tokenizer.get("model") or {}
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind != "BPE" or model.get("byte_fallback"):
        what = "SentencePiece-like (byte_fallback)" if kind == "BPE" else f"of type {kind}"
        raise InputError(f"{path}: is {what}; only byte-level BPE can be written as GGUF yet. Use --to hf")


def _tokens(path: Path, tokenizer: Mapping[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """Every id's token and its type, `vocab_size` long."""
    tokens = [f"[PAD{number}]" for number in range(vocab_size)]
    types = [_UNUSED] * vocab_size
    added = {entry["id"]: entry for entry in tokenizer.get("added_tokens", [])}
    by_id = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    by_id |= {number: entry["content"] for number, entry in added.items()}
    if by_id and max(by_id) >= vocab_size:
        raise InputError(f"{path}: has a token {max(by_id)}, but the model's vocabulary ends at {vocab_size}")
    for number, token in by_id.items():
        tokens[number] = token
        types[number] = _type_of(token, added.get(number))
    return tokens, types


def _type_of(token: str, added: Mapping[str, Any] | None) -> int:
    """Control tokens are those that text never becomes: special ones, and what is written like them."""
    if added is None:
        return _NORMAL
    looks_special = token.startswith(("<|", "<｜")) and token.endswith(("|>", "｜>"))
    return _CONTROL if added.get("special") or looks_special else _USER_DEFINED


def _merge(merge: str | list[str]) -> str:
    return merge if isinstance(merge, str) else " ".join(part.replace(" ", "Ġ") for part in merge)


def _special_ids(tokenizer: Mapping[str, Any], config: Mapping[str, Any], directory: Path) -> dict[str, int]:
    """Ids of bos, eos and pad, from the tokenizer's own files, else from config.json."""
    ids = dict(tokenizer["model"]["vocab"]) | {
        entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", [])
    }
    model_config = read_json(directory / "config.json") if (directory / "config.json").is_file() else {}
    found = {}
    for name, key in _SPECIAL.items():
        token = config.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        number = ids.get(text, model_config.get(f"{name}_id"))
        if isinstance(number, list) and number:
            number = number[0]
        if isinstance(number, int):
            found[f"tokenizer.ggml.{key}"] = number
    return found


def _begins_with_bos(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether encoding puts bos in front, by the template that tokenizer.json carries, else by the config."""
    processor = tokenizer.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        single = step.get("single") if step.get("type") == "TemplateProcessing" else None
        if single:
            return "SpecialToken" in single[0]
    return bool(config.get("add_bos_token", False))


def _template(directory: Path, config: Mapping[str, Any]) -> str | None:
    path = directory / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _tokenizer_json(file: GgufFile) -> dict[str, Any]:
    """A tokenizer.json from tokens, their types and merges."""
    metadata = file.metadata
    kind, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2":
        raise InputError(
            f"{file.path}: tokenizer.ggml.model {kind!r} is not supported; only gpt2, byte-level BPE, is"
        )
    if split not in SPLITS:
        raise InputError(
            f"{file.path}: tokenizer.ggml.pre {split!r} is not supported; known ones: {', '.join(SPLITS)}"
        )
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    types = metadata.get("tokenizer.ggml.token_type") or [_NORMAL] * len(tokens)
    merges = [merge.split(" ", 1) for merge in metadata.get("tokenizer.ggml.merges", [])]
    added = [
        {"id": number, "content": token, "special": kind == _CONTROL, **_AS_IT_STANDS}
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    # added tokens too: the library gives one that the vocabulary lacks an id of its own choice
    vocab = {
        token: number
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind != _UNUSED
    }
    model = {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": split in WHOLE_FIRST}
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if split in ("qwen2", "deepseek-r1-qwen") else None,
        "pre_tokenizer": pre_tokenizer_of(split),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": model,
    }


_AS_IT_STANDS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
