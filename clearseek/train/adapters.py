"""The adapter of a stage: begun new or from one in PEFT's format, and left beside the merged weights."""

from pathlib import Path

from clearseek.config.errors import InputError
from clearseek.config.lora import Lora
from clearseek.config.model import ModelConfig
from clearseek.config.recipe import TrainStage
from clearseek.model.lora import Adapter, adapter_parameters, targeted
from clearseek.model.peft_format import dropout_of, read_adapter, read_settings, write_adapter
from clearseek.train.context import StageContext

ADAPTER_DIRECTORY = "adapter"  # within a stage's checkpoint


def begin_adapter(context: StageContext, stage: TrainStage, config: ModelConfig) -> Adapter | None:
    """What learns in place of a model of `config`, on the stage's device; None where every weight learns.

    Raises InputError for targets that name nothing, and for an adapter that does not belong to the model.
    """
    if stage.lora is None:
        return None
    place = f"stages.{context.stage}.lora"
    if stage.lora.adapter is None:
        adapter = Adapter.fresh(
            config, stage.lora, lambda module: context.key("lora", module), f"{place}.targets"
        )
    else:
        adapter = read_adapter(_with_settings(stage.lora.adapter, place), config)
    return adapter.to(context.device)


def leave_adapter(adapter: Adapter, checkpoint: Path, base: str) -> None:
    """Write an adapter over `base`, as the recipe calls it, into a checkpoint. Raises OSError."""
    write_adapter(adapter, checkpoint / ADAPTER_DIRECTORY, base)


def trained_parameters(config: ModelConfig, lora: Lora, place: str) -> tuple[int, int]:
    """How many elements an adapter's factors have, and how many the weights that they adapt.

    Raises InputError, beginning with `place`, as `begin_adapter` does.
    """
    settings = lora
    if lora.adapter is not None:
        settings = read_settings(_with_settings(lora.adapter, place), config)
    modules = targeted(config, settings.targets or [], f"{place}.targets")
    adapted = sum(module.num_weights for module in modules.values())
    return adapter_parameters(modules, settings.rank or 0), adapted


def _with_settings(adapter: str, place: str) -> Path:
    """The directory to read, whose adapter was trained as we train; else InputError."""
    directory = Path(adapter)
    if not directory.is_dir():
        raise InputError(f"{place}.adapter is {adapter!r}: no such directory")
    if dropout := dropout_of(directory):
        raise InputError(
            f"{place}.adapter is {adapter!r}, which was trained with lora_dropout = {dropout}; there is no dropout "
            "here: set it to 0 in its adapter_config.json to go on without"
        )
    return directory
