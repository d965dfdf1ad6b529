"""One small shape of every family, for tests of what has to hold whatever the family is."""

import importlib
from importlib.util import find_spec
from pathlib import Path

from clearseek.config.model import ModelConfig
from clearseek.model.families import config_from_published
from tests.model.tiny import CONFIGS


def every_family() -> dict[str, ModelConfig]:
    """The first shape of each family by its name: of `tests.model.published` where that is, else of `CONFIGS`."""
    found = {config.family: config for config in reversed(CONFIGS.values())}
    if find_spec("tests.model.published") is not None:
        shapes = importlib.import_module("tests.model.published")
        tables = [shapes.config_json(architecture, 0) for architecture in shapes.FAMILIES]
        configs = [config_from_published(table, Path("config.json")) for table in tables]
        found |= {config.family: config for config in configs if config.family not in found}
    return found


def small(family: str, **changes: int) -> ModelConfig:
    """A family's shape with some numbers changed."""
    return ModelConfig.model_validate(every_family()[family].model_dump() | changes)
