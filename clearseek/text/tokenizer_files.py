"""The files of a tokenizer directory in Hugging Face's layout: what is read, written and refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.text.chat import PLAIN_TEMPLATE
from clearseek.text.special_tokens import named_tokens
from clearseek.text.tokenizer_json import check_tokenizer_json

TEMPLATE_FILE = "chat_template.jinja"
_FURTHER_TEMPLATES = "additional_chat_templates"
# What belongs to a tokenizer and is kept byte for byte, so that a model trained on can be published as it was.
_PUBLISHED = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "tekken.json", "*.tiktoken", "tokenization_*.py",
    TEMPLATE_FILE, "chat_template.json", f"{_FURTHER_TEMPLATES}/*.jinja",
)  # fmt: skip
_MODEL_CONFIGS = ("generation_config.json", "config.json")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What a tokenizer directory holds, read and checked but not yet opened by the library.

    `named` are special tokens by name, `end_ids` what the model's own files call ends, `templates` the chat
    templates by name, `published` every file as it is, by its path in the directory.
    """

    tokenizer_json: str
    config: dict[str, Any]
    named: dict[str, str]
    end_ids: list[int]
    templates: dict[str, str]
    published: dict[str, bytes]


def read_tokenizer_directory(directory: Path) -> TokenizerFiles:
    """Read tokenizer.json, tokenizer_config.json and the chat templates, wherever this directory keeps them.

    A directory without a chat template (a base model's) gets R1-Zero's plain-text form. Raises InputError
    naming the file that is missing or broken, and how to convert a tokenizer in another format.
    """
    _refuse_other_formats(directory)
    tokenizer_json = _read_text(directory / "tokenizer.json")
    try:
        check_tokenizer_json(_read_table(directory / "tokenizer.json"))
    except InputError as error:
        raise InputError(f"{directory / 'tokenizer.json'}: {error}") from None
    config = _read_table(directory / "tokenizer_config.json")
    map_path = directory / "special_tokens_map.json"
    named = named_tokens(config, _read_table(map_path) if map_path.is_file() else {})
    templates = _chat_templates(directory, config.pop("chat_template", None)) or {"default": PLAIN_TEMPLATE}
    published = {
        str(path.relative_to(directory)): _read_bytes(path)
        for pattern in _PUBLISHED
        for path in sorted(directory.glob(pattern))
        if path.is_file()
    }
    return TokenizerFiles(tokenizer_json, config, named, _end_ids(directory), templates, published)


def made_files(tokenizer_json: str, config: Mapping[str, Any], template: str) -> dict[str, bytes]:
    """The three files of a tokenizer that was trained here."""
    config_json = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    texts = {"tokenizer.json": tokenizer_json, "tokenizer_config.json": config_json, TEMPLATE_FILE: template}
    return {name: text.encode("utf-8") for name, text in texts.items()}


def write_tokenizer_directory(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their paths in `directory`; raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def _refuse_other_formats(directory: Path) -> None:
    """Say how to convert a tokenizer that has no tokenizer.json but files of another kind."""
    if (directory / "tokenizer.json").is_file():
        return
    ranks = next(iter(sorted(directory.glob("*.tiktoken"))), None)
    code = next(iter(sorted(directory.glob("tokenization_*.py"))), None)
    if ranks is not None:
        raise InputError(
            f"{ranks}: a tiktoken vocabulary without tokenizer.json; write one with transformers and tiktoken: "
            f"TikTokenConverter({ranks.name!r}, pattern=..., extra_special_tokens=[...]).converted()"
            ".save('tokenizer.json') of transformers.convert_slow_tokenizer, with the pattern and the special "
            f"tokens that stand in {code.name if code else 'the code of that tokenizer'}"
        )
    if (directory / "tokenizer.model").is_file():
        raise InputError(
            f"{directory / 'tokenizer.model'}: a sentencepiece model without tokenizer.json; write one with "
            "transformers, sentencepiece and protobuf: "
            "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )
    if code is not None:
        raise InputError(
            f"{code}: the tokenizer is code that came with the model, which clearseek never runs; write a "
            "tokenizer.json, or take one from another checkpoint with the same vocabulary"
        )


def _chat_templates(directory: Path, in_config: Any) -> dict[str, str]:
    """Templates by name: from files of their own, else from the config, as one text or a list of named ones."""
    files = {"default": directory / TEMPLATE_FILE} if (directory / TEMPLATE_FILE).is_file() else {}
    files |= {path.stem: path for path in sorted((directory / _FURTHER_TEMPLATES).glob("*.jinja"))}
    if files:
        return {name: _read_text(path) for name, path in files.items()}
    in_json = directory / "chat_template.json"
    if in_config is None and in_json.is_file():
        in_config = _read_table(in_json).get("chat_template")
    if isinstance(in_config, list):
        try:
            in_config = {entry["name"]: entry["template"] for entry in in_config}
        except (TypeError, KeyError) as error:
            place = directory / "tokenizer_config.json"
            raise InputError(f"{place}: chat_template entries need a name and a template") from error
    templates = in_config if isinstance(in_config, dict) else {"default": in_config} if in_config else {}
    if not all(isinstance(template, str) for template in templates.values()):
        raise InputError(
            f"{directory / 'tokenizer_config.json'}: chat_template must be text, or a list of named templates"
        )
    if templates and "default" not in templates:
        raise InputError(
            f"{directory / 'tokenizer_config.json'}: several chat templates ({', '.join(sorted(templates))}) "
            "and none of them named default; rename the one that conversations shall take"
        )
    return templates


def _end_ids(directory: Path) -> list[int]:
    """The ids that the first of the model's own files that knows any names as ends, in their order."""
    for path in (directory / name for name in _MODEL_CONFIGS):
        named = _read_table(path).get("eos_token_id") if path.is_file() else None
        listed = named if isinstance(named, list) else [named]
        if ids := [token for token in listed if isinstance(token, int)]:
            return ids
    return []


def _read_text(path: Path) -> str:
    try:
        return _read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{path}: no such file; give a directory in Hugging Face format with a tokenizer"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error


def _read_table(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: broken JSON at line {error.lineno} ({error.msg})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
