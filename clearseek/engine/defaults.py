"""How a model is sampled where nobody says: as its publisher does, else as R1's paper does."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.engine.request import Sampling
from clearseek.engine.sampling_settings import check_sampling
from clearseek.model.stored import read_json
from clearseek.text.kept_files import GENERATION_FILE

DEFAULTS: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95}
_PUBLISHED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_ANY_VOCABULARY = 1 << 31  # no published setting names tokens


def default_settings(directory: Path) -> dict[str, Any]:
    """Settings of `Sampling` by name: what `generation_config.json` says, and ours where it is silent.

    Its `do_sample: false` means temperature 0. InputError naming the file where a value can't be meant.
    """
    path = directory / GENERATION_FILE
    if not path.is_file():
        return dict(DEFAULTS)
    said = read_json(path)
    published = {name: said[name] for name in _PUBLISHED if said.get(name) is not None}
    if said.get("do_sample") is False:
        published["temperature"] = 0.0
    try:
        check_sampling(Sampling(**published), _ANY_VOCABULARY)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return DEFAULTS | published


def check_settings(settings: dict[str, Any], max_tokens: int | None) -> None:
    """Raise InputError for what is wrong with settings of any model, before one is loaded."""
    known = {field.name for field in fields(Sampling)}
    assert known.issuperset(settings), "settings have Sampling's names"
    check_sampling(Sampling(**settings, max_tokens=max_tokens or _ANY_VOCABULARY), _ANY_VOCABULARY)
