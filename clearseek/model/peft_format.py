"""Adapters in PEFT's format: adapter_config.json and adapter_model.safetensors, read and written.

Factors of experts go by the names of single experts, as they are published. PEFT reads them so too, but in a model that
has dense layers beside experts it looks for gate_proj, up_proj and down_proj in the experts only. A layer's experts
together are PEFT's `target_parameters`: factors go by the experts' own name, or the first of two by `base_layer` in it.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from clearseek.config.errors import InputError
from clearseek.config.lora import ALL_LINEAR, MAX_RANK, Lora
from clearseek.config.model import ModelConfig
from clearseek.model.lora import (
    Adapter,
    Module,
    expert_parameters,
    is_named,
    linear_modules,
    targeted,
)
from clearseek.model.stored import load_tensors, read_json, save_tensors

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"

_PREFIX = "base_model.model."
# what says nothing about what the factors compute: where they come from, how they were begun, tools' own notes
_NOTES = frozenset(
    ("auto_mapping", "base_model_name_or_path", "inference_mode", "init_lora_weights", "loftq_config",
     "lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config",
     "task_type")
)  # fmt: skip
_READ = frozenset(
    ("peft_type", "r", "lora_alpha", "target_modules", "target_parameters", "use_rslora", "bias")
)
_LARGEST_ALPHA = 1e9
_NAMED_AT_MOST = 3  # tensors that an error lists


def is_adapter_directory(path: Path) -> bool:
    """Whether a directory holds an adapter."""
    return (path / ADAPTER_CONFIG_FILE).is_file()


def read_settings(directory: Path, config: ModelConfig) -> Lora:
    """Rank, alpha and targets of an adapter over a model of `config`.

    Raises InputError naming the file and what in it is missing, or is not supported, such as DoRA or biases.
    """
    path = directory / ADAPTER_CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the directory of an adapter in PEFT's format")
    table = read_json(path)
    _refuse_what_we_lack(table, path)
    rank: Any = table.get("r")
    alpha: Any = table.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise InputError(f"{path}: r is {rank!r}; it has to be a number from 1 to {MAX_RANK}")
    if not _is_number(alpha) or not 0 < alpha <= _LARGEST_ALPHA:
        raise InputError(f"{path}: lora_alpha is {alpha!r}; it has to be a number above 0")
    targets = _expert_targets(table.get("target_parameters") or [], config, path)
    if table.get("target_modules") or not targets:
        targets = _targets(table.get("target_modules"), config, directory) + targets
    return Lora(rank=rank, alpha=float(alpha), targets=targets, rslora=bool(table.get("use_rslora")))


def dropout_of(directory: Path) -> float:
    """The dropout that an adapter was trained with; it says nothing about what the factors compute."""
    path = directory / ADAPTER_CONFIG_FILE
    dropout: Any = (read_json(path).get("lora_dropout") if path.is_file() else None) or 0.0
    if not _is_number(dropout) or not 0 <= dropout <= 1:
        raise InputError(f"{path}: lora_dropout is {dropout!r}; it has to be a number from 0 to 1")
    return float(dropout)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_adapter(directory: Path, config: ModelConfig) -> Adapter:
    """The adapter in a directory, for a model of `config`, on the CPU in fp32.

    Raises InputError as `read_settings` does, and for factors that are missing, left over or of other shapes.
    """
    settings = read_settings(directory, config)
    assert settings.targets is not None
    assert settings.rank is not None
    modules = targeted(config, settings.targets, f"{directory / ADAPTER_CONFIG_FILE}: target_modules")
    path = _factors_file(directory)
    stored, _ = load_tensors(path)
    factors = {
        name: _factors(stored, _stored_name(name, modules), module, settings.rank, path)
        for name, module in modules.items()
    }
    if stored:
        shown = ", ".join(sorted(stored)[:_NAMED_AT_MOST]) + (", …" if len(stored) > _NAMED_AT_MOST else "")
        raise InputError(
            f"{path}: {len(stored)} tensors left over that target_modules does not name ({shown})"
        )
    return Adapter(settings, modules, factors)


def write_adapter(adapter: Adapter, directory: Path, base: str) -> None:
    """Write an adapter as PEFT opens it over `base`, a name for people. Raises OSError."""
    settings = adapter.settings
    directory.mkdir(parents=True, exist_ok=True)
    table = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": settings.rank,
        "target_modules": _target_modules(adapter),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": bool(settings.rslora),
    }
    if parameters := _expert_names(adapter):
        table["target_parameters"] = parameters
    text = json.dumps(table, indent=2, ensure_ascii=False, sort_keys=True)
    (directory / ADAPTER_CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    tensors = {
        f"{_PREFIX}{_stored_name(name, adapter.modules)}.lora_{factor}.weight": parameter.detach()
        for name, factors in adapter.factors.items()
        for factor, parameter in zip("AB", factors, strict=True)
    }
    save_tensors(directory / ADAPTER_FILE, tensors, {"format": "pt"})


def _target_modules(adapter: Adapter) -> list[str]:
    """What the adapter was told, `all-linear` spelt out by the last parts of the names."""
    targets, together = adapter.settings.targets or [], _expert_names(adapter)
    if ALL_LINEAR not in targets:
        return sorted(set(targets) - set(together))
    return sorted({name.rpartition(".")[2] for name, module in adapter.modules.items() if not module.experts})


def _expert_names(adapter: Adapter) -> list[str]:
    """The targets that name all experts of a layer together."""
    together = [name for name, module in adapter.modules.items() if module.experts]
    targets = adapter.settings.targets or []
    return sorted(target for target in targets if any(is_named(name, target) for name in together))


def _stored_name(name: str, modules: dict[str, Module]) -> str:
    """What a module's factors go by: of experts together their parent, with both of a layer one inside the other."""
    if not modules[name].experts:
        return name
    parent, _, own = name.rpartition(".")
    is_inner = own == "gate_up_proj" and f"{parent}.down_proj" in modules
    return f"{parent}.base_layer" if is_inner else parent


def _refuse_what_we_lack(table: dict[str, Any], path: Path) -> None:
    kind = table.get("peft_type")
    if kind != "LORA":
        raise InputError(f"{path}: peft_type is {kind!r}; only LORA is supported")
    if table.get("bias", "none") != "none":
        raise InputError(f"{path}: bias = {table['bias']!r} is not supported; only 'none' is")
    for key, value in table.items():
        if key not in _READ | _NOTES and value not in (None, False, [], {}, ""):
            raise InputError(
                f"{path}: {key} = {value!r} is not supported; merge this adapter with PEFT instead"
            )


def _expert_targets(value: Any, config: ModelConfig, path: Path) -> list[str]:
    """target_parameters as our targets; only experts have parameters that are no modules."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{path}: target_parameters is {value!r}; it has to be names in a list")
    found: list[str] = []
    for target in value:
        named = [name for name in expert_parameters(config) if is_named(name, target)]
        if not named:
            raise InputError(
                f"{path}: target_parameters = {target!r} is not supported; only mlp.experts.gate_up_proj and "
                "mlp.experts.down_proj are, in a model with experts"
            )
        found += [target] if "experts." in target else named
    return found


def _targets(value: Any, config: ModelConfig, directory: Path) -> list[str]:
    """target_modules as our targets: the names that are here.

    An expression is not evaluated, as a stranger's may never end: the factors say which modules it named.
    """
    path = directory / ADAPTER_CONFIG_FILE
    if value == ALL_LINEAR:
        return [ALL_LINEAR]
    modules = linear_modules(config)
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        found = [name for name in value if any(is_named(module, name) for module in modules)]
    elif isinstance(value, str):
        tensors, _ = load_tensors(_factors_file(directory))
        stored = {key.removeprefix(_PREFIX).partition(".lora_")[0] for key in tensors}
        found = [name for name in modules if name in stored]
    else:
        raise InputError(
            f"{path}: target_modules is {value!r}; it has to be names in a list, or an expression"
        )
    if not found:
        raise InputError(f"{path}: target_modules {value!r} names no linear map of this {config.family}")
    return found


def _factors_file(directory: Path) -> Path:
    path = directory / ADAPTER_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; an adapter's factors are read from safetensors only")
    return path


def _factors(
    stored: dict[str, Tensor], name: str, module: Module, rank: int, path: Path
) -> tuple[Tensor, Tensor]:
    """A and B of a module, taken out of what is stored."""
    found = []
    for factor, shape in zip("AB", module.factor_shapes(rank), strict=True):
        key = f"{_PREFIX}{name}.lora_{factor}.weight"
        tensor = stored.pop(key, None)
        if tensor is None:
            raise InputError(f"{path}: {key} is missing, which {ADAPTER_CONFIG_FILE} asks for")
        if tuple(tensor.shape) != shape:
            raise InputError(
                f"{path}: {key} is {list(tensor.shape)}, but the base and its r make it {list(shape)}; "
                "an adapter belongs to the base that it was trained on"
            )
        found.append(tensor.float())
    return found[0], found[1]
