"""One small shape of every family, for tests of what has to hold whatever the family is."""

from pathlib import Path

from clearseek.config.model import ModelConfig
from clearseek.model.families import config_from_published
from tests.model.published import FAMILIES, config_json
from tests.model.tiny import CONFIGS

# transformers stretches Mistral 4's rotary by 128 where config.json says nothing of it, and has no form without
_STRETCHED = {"Mistral4ForCausalLM": 2}


def every_family() -> dict[str, ModelConfig]:
    """A shape of each family by its name: of `CONFIGS` where that has one, else as it is published."""
    found = {config.family: config for config in reversed(CONFIGS.values())}
    for architecture in FAMILIES:
        published = config_json(architecture, _STRETCHED.get(architecture, 0))
        config = config_from_published(published, Path("config.json"))
        found.setdefault(config.family, config)
    return found


def small(family: str, **changes: int) -> ModelConfig:
    """A family's shape with some numbers changed."""
    return ModelConfig.model_validate(every_family()[family].model_dump() | changes)
