"""A tokenizer directory as the keys of a GGUF file.

Beside llama.cpp's own keys the whole tokenizer.json goes into `tokenizer.huggingface.json`, a key of GGUF's
specification, so that whoever reads that key splits text as we do.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.model.gguf.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    begins_with_space,
    is_sentencepiece_like,
    scores_of,
)
from clearseek.model.gguf.splits import split_name
from clearseek.model.stored import read_json

WHOLE_TOKENIZER = "tokenizer.huggingface.json"
SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "pad_token": "padding_token_id",
    "unk_token": "unknown_token_id",
}
_SPLITS_OTHERWISE = (
    "llama.cpp has no name for how this tokenizer splits text: "
    "it will split some texts otherwise than clearseek"
)
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def vocabulary_keys(directory: Path, vocab_size: int) -> tuple[dict[str, Any], list[str]]:
    """GGUF's keys of a directory's tokenizer, and what a user should know, one line each.

    `vocab_size` is the model's; ids that no token has are filled up. Raises InputError for a tokenizer that llama.cpp
    would not open: one that is not BPE over bytes or characters, or is without merges.
    """
    path = directory / "tokenizer.json"
    tokenizer = read_json(path)
    config_path = directory / "tokenizer_config.json"
    config = read_json(config_path) if config_path.is_file() else {}
    _check_kind(path, tokenizer)
    tokens, types = _tokens(path, tokenizer, vocab_size)
    own, notes = (_characters if is_sentencepiece_like(tokenizer) else _bytes)(tokenizer, tokens)
    keys = {
        **own,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        **_special_ids(tokenizer, config, directory),
        "tokenizer.ggml.add_bos_token": _begins_with_bos(tokenizer, config),
        WHOLE_TOKENIZER: json.dumps(tokenizer, ensure_ascii=False),
    }
    template = _template(directory, config)
    if template:
        keys["tokenizer.chat_template"] = template
    return keys, notes


def _bytes(tokenizer: Mapping[str, Any], tokens: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What byte-level BPE adds: its merges, and the name of how it splits text."""
    name = split_name(tokenizer.get("pre_tokenizer"))
    keys = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name or "default",
        "tokenizer.ggml.merges": [_merge(merge) for merge in tokenizer["model"]["merges"]],
    }
    return keys, [] if name else [_SPLITS_OTHERWISE]


def _characters(tokenizer: Mapping[str, Any], tokens: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What BPE over characters adds: scores in the place of merges."""
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": scores_of(tokenizer, tokens),
        "tokenizer.ggml.add_space_prefix": begins_with_space(tokenizer),
    }, []


def _check_kind(path: Path, tokenizer: Mapping[str, Any]) -> None:
    model = tokenizer.get("model") or {}
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind != "BPE":
        raise InputError(f"{path}: is of type {kind}; only BPE can be written as GGUF. Use --to hf")
    if not model.get("merges") and not is_sentencepiece_like(tokenizer):
        raise InputError(
            f"{path}: has no merges, without which llama.cpp opens no BPE vocabulary. Use --to hf"
        )


def _tokens(path: Path, tokenizer: Mapping[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """Every id's token and its type, `vocab_size` long."""
    tokens = [f"[PAD{number}]" for number in range(vocab_size)]
    types = [UNUSED] * vocab_size
    added = {entry["id"]: entry for entry in tokenizer.get("added_tokens", [])}
    by_id = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    by_id |= {number: entry["content"] for number, entry in added.items()}
    if by_id and max(by_id) >= vocab_size:
        raise InputError(f"{path}: has a token {max(by_id)}, but the model's vocabulary ends at {vocab_size}")
    for number, token in by_id.items():
        tokens[number] = token
        types[number] = _type_of(token, added.get(number), tokenizer["model"])
    return tokens, types


def _type_of(token: str, added: Mapping[str, Any] | None, model: Mapping[str, Any]) -> int:
    """Control tokens are those that text never becomes: special ones, and what is written like them."""
    if model.get("byte_fallback") and token == model.get("unk_token"):
        return UNKNOWN
    if model.get("byte_fallback") and _BYTE_TOKEN.fullmatch(token):
        return BYTE
    if added is None:
        return NORMAL
    looks_special = token.startswith(("<|", "<｜")) and token.endswith(("|>", "｜>"))
    return CONTROL if added.get("special") or looks_special else USER_DEFINED


def _merge(merge: str | list[str]) -> str:
    return merge if isinstance(merge, str) else " ".join(part.replace(" ", "Ġ") for part in merge)


def _special_ids(tokenizer: Mapping[str, Any], config: Mapping[str, Any], directory: Path) -> dict[str, int]:
    """Ids of bos, eos and pad, from the tokenizer's own files, else from config.json."""
    ids = dict(tokenizer["model"]["vocab"]) | {
        entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens", [])
    }
    model_config = read_json(directory / "config.json") if (directory / "config.json").is_file() else {}
    found = {}
    for name, key in SPECIAL.items():
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
