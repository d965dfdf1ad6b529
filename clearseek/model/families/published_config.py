"""A published config.json: read key by key into our ModelConfig, and written back.

What a key would switch on in other implementations and we have not built is refused by name, never ignored.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.families.family import OPTIONAL, Family, Published
from clearseek.model.families.published_rope import read_rope, write_rope
from clearseek.model.sources import check_quantisation


def read_config(family: Family, published: Published, path: Path) -> ModelConfig:
    """The ModelConfig of a family's config.json; raises InputError naming file and key."""
    check_switches(published, family.switches, path)
    if published.get("quantization_config") is not None:
        check_quantisation(published["quantization_config"], path)
    names = {ours: _alternatives(theirs) for ours, theirs in family.keys.items()}
    values = {"family": family.name, **family.implied}
    missing = []
    for ours, theirs in names.items():
        value = next((published[key] for key in theirs if published.get(key) is not None), None)
        value = family.defaults.get(theirs[0]) if value is None else value
        if value is not None:
            values[ours] = value
        elif ours not in OPTIONAL and not any(key in published or key in family.defaults for key in theirs):
            missing.append(theirs[0])
    if missing:
        raise InputError(
            f"{path}: {', '.join(missing)} missing; a {family.name} config.json has to give them"
        )
    # a family that knows a head's turning part reads it itself
    rope = {**published, "partial_rotary_factor": None} if "rotary_head_dim" in family.more else published
    values |= {"rope_theta": family.default_theta} | read_rope(rope, family.scalings, path)
    values |= family.read(published, path)
    try:
        return ModelConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: {_first_problem(error, names)}") from error


def _alternatives(theirs: str | tuple[str, ...]) -> tuple[str, ...]:
    return (theirs,) if isinstance(theirs, str) else theirs


def _first_problem(error: ValidationError, names: dict[str, tuple[str, ...]]) -> str:
    first = error.errors()[0]
    key = ".".join(names.get(str(part), (str(part),))[0] for part in first["loc"])
    place = f"{key}: " if key else ""
    return f"{place}{first['msg'].removeprefix('Value error, ')}"


def write_config(family: Family, config: ModelConfig) -> dict[str, Any]:
    """The published keys of a config, with the rotary ones. Raises InputError for what the family has not got."""
    check_fields(family, config)
    published: dict[str, Any] = {}
    for ours, theirs in family.keys.items():
        key, value = _alternatives(theirs)[0], getattr(config, ours)
        if published.setdefault(key, value) != value:
            raise InputError(
                f"{ours} = {value!r}: {family.name} has only one {key}, which is {published[key]!r}"
            )
    published |= {key: value for key, value in family.switches.items() if value is not None}
    if "head_dim" in family.keys:
        published |= {"head_dim": config.head_size, "num_key_value_heads": config.kv_heads}
    more = family.write(config)
    rope = {} if "rope_parameters" in more else write_rope(config)
    return published | rope | more


def check_fields(family: Family, config: ModelConfig) -> None:
    """Raises InputError for a field that is set to what no checkpoint of the family can hold."""
    for name, info in type(config).model_fields.items():
        value, default = getattr(config, name), family.implied.get(name, info.default)
        if name not in family.known - family.implied.keys() and value != default:
            raise InputError(f"{name} = {value!r}: family {family.name} has only {default!r}")
    scaling = config.rope_scaling
    if scaling is not None and scaling.kind not in family.scalings:
        raise InputError(f"rope_scaling of kind {scaling.kind!r} is not part of family {family.name}")


def check_switches(published: Published, supported: Published, path: Path) -> None:
    """Raise InputError for the first switch that is set to something we have not built."""
    for key, setting in supported.items():
        value = published.get(key)
        if value is not None and value != setting:
            raise InputError(f"{path}: {key} = {value!r} is not supported; only {setting!r} is")


def integers(published: Published, key: str, path: Path) -> list[int]:
    """A published list of numbers, empty where there is none. Raises InputError for anything else."""
    value = published.get(key) or []
    if not isinstance(value, list) or not all(isinstance(number, int) for number in value):
        raise InputError(f"{path}: {key} = {value!r} has to be a list of whole numbers")
    return value


def uniform(published: Published, key: str, path: Path) -> int | None:
    """A number that some publish once for every layer, where all agree. Raises InputError where they don't."""
    value = published.get(key)
    if not isinstance(value, list):
        return value
    if len(set(map(str, value))) != 1 or not isinstance(value[0], int):
        raise InputError(f"{path}: {key} = {value!r} differs between layers, which is not supported")
    return int(value[0])


def layer_list(published: Published, key: str, kinds: tuple[str, ...], path: Path) -> list[str] | None:
    """A published list with one of `kinds` for every layer; None where there is none."""
    value = published.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or any(kind not in kinds for kind in value):
        raise InputError(
            f"{path}: {key} = {value!r} is not supported; only a list of {' and '.join(kinds)} is"
        )
    if isinstance(count := published.get("num_hidden_layers"), int) and len(value) < count:
        raise InputError(f"{path}: {key} ({len(value)}) must name num_hidden_layers ({count})")
    return value[:count] if isinstance(count, int) else value


def dense_from_types(published: Published, path: Path) -> dict[str, Any] | None:
    """Our fields from `mlp_layer_types`; None where the file has none."""
    kinds = layer_list(published, "mlp_layer_types", ("dense", "sparse"), path)
    if kinds is None:
        return None
    return dense_fields([index for index, kind in enumerate(kinds) if kind == "dense"])


def dense_fields(dense: list[int]) -> dict[str, Any]:
    """Our fields for layers that stay dense: a run at the beginning, and the others."""
    first = next((count for count, index in enumerate(dense) if index != count), len(dense))
    return {"num_dense_layers": first, "dense_layers": tuple(dense[first:])}


def mlp_layer_types(config: ModelConfig) -> list[str]:
    """The published list of what every layer's feed-forward is."""
    return ["sparse" if config.is_moe_layer(index) else "dense" for index in range(config.num_layers)]
