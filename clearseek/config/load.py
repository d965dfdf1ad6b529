"""Recipes from TOML: overrides from the command line, errors that name the key and the nearest known one."""

import difflib
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from clearseek.config.engine import Vllm
from clearseek.config.errors import InputError
from clearseek.config.lora import Lora
from clearseek.config.model import ModelConfig
from clearseek.config.recipe import (
    STAGE_KINDS,
    DataSource,
    Evaluation,
    Filters,
    Optimizer,
    Problems,
    Published,
    Recipe,
    Recording,
    Schedule,
)
from clearseek.config.release import Release

_NESTED: dict[str, type[BaseModel]] = {
    "optimizer": Optimizer,
    "lora": Lora,
    "engine": Vllm,
    "schedule": Schedule,
    "evaluation": Evaluation,
    "ledger": Recording,
    "problems": Problems,
    "filters": Filters,
    "data": DataSource,
    "sft_data": DataSource,
    "published": Published,
    "release": Release,
}
_NAMED = {"models": "model", "stages": "stage"}  # tables whose keys are names that the recipe gives
_TYPES = {
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "list_type": "a list",
}
SHOWN = 4  # mistakes told at once


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read, override and check a recipe; raises InputError naming file, key, value and what was expected."""
    values = read_toml(path)
    for override in overrides or []:
        apply_override(values, override)
    return parse_recipe(values, str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as plain values; InputError when it is missing or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no recipe at {path}; the shipped ones are in recipes/") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def parse_recipe(values: dict[str, Any], place: str) -> Recipe:
    """Check plain values as a recipe; raises InputError with the first problems in one line."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        wrong = list(dict.fromkeys(_explain(dict(problem), values) for problem in error.errors()))
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise InputError(f"{place}: " + "; ".join(wrong[:SHOWN]) + more) from None


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set `stage.key=value` (or `key=value` at the top) in place; the value is read as TOML, else as text."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"override {override!r} is not of the form stage.key=value")
    stages = _table(values, "stages")
    if parts[0] in stages:
        parts = ["stages", *parts]
    elif len(parts) > 1 and parts[0] not in Recipe.model_fields:
        known = [*stages, *Recipe.model_fields]
        raise InputError(f"override {key!r}: no stage {parts[0]!r}{nearest(parts[0], known)}")
    if parts[0] in _NAMED and len(parts) > 2 and parts[1] not in _table(values, parts[0]):
        known, what = list(_table(values, parts[0])), _NAMED[parts[0]]
        raise InputError(f"override {key!r}: no {what} {parts[1]!r}{nearest(parts[1], known)}")
    table: Any = values
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"override {key!r}: {part!r} is not a table")
    table[parts[-1]] = _toml_value(text.strip())


def _table(values: dict[str, Any], name: str) -> dict[str, Any]:
    """A table of the recipe; empty where it is not there, or not a table, which the schema tells."""
    table = values.get(name)
    return table if isinstance(table, dict) else {}


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, else the list of known ones."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known) or 'none'}"


def _explain(problem: dict[str, Any], values: dict[str, Any]) -> str:
    """One pydantic problem as a sentence with the key's place and the nearest known key."""
    location = [
        part for part in problem["loc"] if part not in STAGE_KINDS or part in _table(values, "stages")
    ]
    if len(problem["loc"]) > 3 and problem["loc"][0] == "stages" and problem["loc"][2] in STAGE_KINDS:
        location = [*problem["loc"][:2], *problem["loc"][3:]]
    elif len(problem["loc"]) == 3 and problem["loc"][0] == "stages":
        location = list(problem["loc"][:2])
    key = ".".join(str(part) for part in location) or "recipe"
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(location[:-1], values)
        return f"unknown key {key}{nearest(str(location[-1]), fields)}"
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return f"{key}.kind must be one of {', '.join(STAGE_KINDS)}"
    if problem["type"] in _TYPES:
        return f"{key} = {problem['input']!r}: input should be {_TYPES[problem['type']]}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}"
    return f"{key} = {problem['input']!r}: {message[0].lower() + message[1:]}"


def _fields_at(location: list[Any], values: dict[str, Any]) -> list[str]:
    """The keys known at a place of the recipe."""
    if not location:
        return list(Recipe.model_fields)
    for part in reversed(location):
        if part in _NESTED:
            return list(_NESTED[part].model_fields)
    if location[0] == "models":
        return list(ModelConfig.model_fields)
    kind = _table(values, "stages").get(location[1], {}).get("kind") if len(location) > 1 else None
    return list(STAGE_KINDS[kind].model_fields) if kind in STAGE_KINDS else list(Recipe.model_fields)


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The whole recipe, defaults filled in, as plain JSON values."""
    return recipe.model_dump(mode="json")


def recipe_sha256(recipe: Recipe) -> str:
    """Hash of the resolved recipe; what decides whether a run may be continued."""
    return hashlib.sha256(json.dumps(resolved(recipe), sort_keys=True).encode()).hexdigest()


def difference(old: dict[str, Any], new: dict[str, Any], place: str = "") -> list[str]:
    """Every key whose value differs between two resolved recipes, as `key: old → new`."""
    lines = []
    for key in dict.fromkeys([*old, *new]):
        here = f"{place}.{key}" if place else key
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += difference(before, after, here)
        elif before != after:
            lines.append(
                f"{here}: {json.dumps(before, ensure_ascii=False)} → {json.dumps(after, ensure_ascii=False)}"
            )
    return lines
