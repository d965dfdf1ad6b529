"""The files of a tokenizer directory in Hugging Face's layout: what is read, written and refused."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.text.chat import PLAIN_TEMPLATE, ChatTemplate

_NAMED_TOKENS = ("bos_token", "eos_token", "pad_token")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What a tokenizer directory holds, read and checked but not yet opened by the library."""

    tokenizer_json: str
    config: dict[str, Any]
    chat: ChatTemplate


def read_tokenizer_directory(directory: Path) -> TokenizerFiles:
    """Read tokenizer.json, tokenizer_config.json and the chat template, wherever this directory keeps it.

    A directory without a chat template (a base model's) gets R1-Zero's plain-text form. Raises InputError
    naming the file that is missing or broken.
    """
    tokenizer_json = _read_text(directory / "tokenizer.json")
    config = _read_table(directory / "tokenizer_config.json")
    map_path = directory / "special_tokens_map.json"
    named = _read_table(map_path) if map_path.is_file() else {}
    for name in _NAMED_TOKENS:
        config[name] = _token_text(config.get(name) or named.get(name))
    source = _chat_template(directory, config.pop("chat_template", None))
    begin, end = config["bos_token"] or "", config["eos_token"] or ""
    chat = ChatTemplate(source or PLAIN_TEMPLATE, begin, end, f"{directory}: chat template")
    return TokenizerFiles(tokenizer_json, config, chat)


def write_tokenizer_directory(
    directory: Path, tokenizer_json: str, config: dict[str, Any], template: str
) -> None:
    """Write the three files; raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    config_json = json.dumps(config, indent=2, ensure_ascii=False)
    (directory / "tokenizer_config.json").write_text(config_json + "\n", encoding="utf-8")
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{path}: no such file; give a directory in Hugging Face format with a tokenizer"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _read_table(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: broken JSON at line {error.lineno} ({error.msg})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _token_text(token: Any) -> str | None:
    """A token's string, written plainly or as an object with `content`."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _chat_template(directory: Path, in_config: Any) -> str | None:
    """The template from its own file, else from the config: text, or a list of named ones."""
    for path in (
        directory / "chat_template.jinja",
        directory / "additional_chat_templates" / "default.jinja",
    ):
        if path.is_file():
            return _read_text(path)
    in_json = directory / "chat_template.json"
    if in_config is None and in_json.is_file():
        in_config = _read_table(in_json).get("chat_template")
    if isinstance(in_config, list):
        try:
            in_config = {entry["name"]: entry["template"] for entry in in_config}
        except (TypeError, KeyError) as error:
            place = directory / "tokenizer_config.json"
            raise InputError(f"{place}: chat_template entries need a name and a template") from error
    if isinstance(in_config, dict) and in_config:
        in_config = in_config.get("default", next(iter(in_config.values())))
    if in_config is None or isinstance(in_config, str):
        return in_config or None
    raise InputError(
        f"{directory / 'tokenizer_config.json'}: chat_template must be text, or a list of named templates"
    )
