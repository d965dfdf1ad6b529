"""Published checkpoint formats: config.json and tensor names of each, mapped onto the one decoder.

To add one: write a file beside these that names a `FAMILY`, and a row in tests/model/families.py.
"""

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.model import MAX_MTP_LAYERS, ModelConfig
from clearseek.model.families.family import Family
from clearseek.model.families.pieces import Piece, mtp_prefix, pieces
from clearseek.model.families.published_config import check_fields, read_config, write_config

_MODULES = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY for module in _MODULES if hasattr(module, "FAMILY")
}
_BY_ARCHITECTURE = {family.architecture: family for family in FAMILIES.values()}


def config_from_published(published: Mapping[str, Any], path: Path) -> ModelConfig:
    """Our config from the contents of a config.json; `path` is named in errors.

    Raises InputError for an architecture, a switch or dimensions that we have not got.
    """
    return read_config(family_of(published, path), published, path)


def family_of(published: Mapping[str, Any], path: Path) -> Family:
    """The family that a config.json names, by its architecture or else by its model_type.

    An architecture under a model_type that is not known counts: Kimi-K2 calls DeepSeek-V3's its own.
    """
    named = published.get("architectures")
    architectures = named if isinstance(named, list) else []
    found = [
        _BY_ARCHITECTURE[name] for name in architectures if isinstance(name, str) and name in _BY_ARCHITECTURE
    ]
    model_type = str(published.get("model_type"))
    if found:
        if model_type in FAMILIES and model_type != found[0].name:
            raise InputError(
                f"{path}: architecture {found[0].architecture!r} and model_type {model_type!r} differ"
            )
        return found[0]
    if model_type in FAMILIES and not architectures:
        return FAMILIES[model_type]
    what = f"architecture {architectures[0]!r}" if architectures else f"model_type {model_type!r}"
    raise InputError(
        f"{path}: {what} is not known; known ones: {', '.join(sorted(_BY_ARCHITECTURE))}. To add one, write a file "
        "in clearseek/model/families (docs/add-a-model.md)"
    )


def config_to_published(config: ModelConfig) -> dict[str, Any]:
    """The contents of a config.json, without token ids and dtype."""
    family = FAMILIES[config.family]
    return {
        "architectures": [family.architecture],
        "model_type": config.family,
        **write_config(family, config),
        "use_cache": True,
    }


def check_config(config: ModelConfig) -> None:
    """Raises InputError for a field that no checkpoint of the config's family can hold."""
    check_fields(FAMILIES[config.family], config)


def pieces_of(config: ModelConfig) -> Iterator[Piece]:
    """Every tensor of the published checkpoint, each once, in the published order."""
    return pieces(config, FAMILIES[config.family])


def with_stored_mtp(config: ModelConfig, names: Iterable[str]) -> ModelConfig:
    """The config with the multi-token modules that a checkpoint of tensors `names` has.

    None where config.json promises some of which nothing is stored, as `transformers` writes it; those that are there
    where it doesn't speak of them, as MiMo-V2-Flash's doesn't.
    """
    prefixes = [f"{mtp_prefix(config, depth)}." for depth in range(MAX_MTP_LAYERS)]
    stored = {prefix for name in names for prefix in prefixes if name.startswith(prefix)}
    count = config.num_mtp_layers
    if not count and config.mtp_kind in ("mimo_v2", "ernie"):
        count = len(stored)
    return config.model_copy(update={"num_mtp_layers": count if stored else 0})


def is_derived(published: str) -> bool:
    """Whether a tensor repeats what config.json says: an old table of frequencies."""
    return published.endswith("rotary_emb.inv_freq")


def unread_pattern(config: ModelConfig, published: str) -> str | None:
    """The family's pattern of tensors that it leaves unread, if that means this one."""
    patterns = FAMILIES[config.family].unread
    return next((pattern for pattern in patterns if fnmatchcase(published, pattern)), None)


def unread_tensors(config: ModelConfig, names: Iterable[str]) -> dict[str, int]:
    """By the family's patterns, how many of a checkpoint's tensors it leaves unread: saving loses them."""
    if not FAMILIES[config.family].unread:
        return {}
    read = {piece.published for piece in pieces_of(config)}
    patterns = (unread_pattern(config, name) for name in set(names) - read)
    return dict(Counter(pattern for pattern in patterns if pattern is not None))
