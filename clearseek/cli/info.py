"""`clearseek info`: what a model is and needs, without loading it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from clearseek.cli.options import json_option, print_columns, print_json
from clearseek.cli.transfer import byte_words

if TYPE_CHECKING:
    from clearseek.model.inspect import ModelInfo

EPILOG = """\b
Examples:
  clearseek info runs/r1-mini
  clearseek info DeepSeek-R1 --json
  clearseek info model-Q4_K.gguf

\b
Only headers are read: a directory with nothing but its config.json will do.
Memory is that of the weights, and of what every 1,000 tokens of context add;
"fits" compares both with this machine's memory. Multi-token modules, which
only training needs, are told apart.

Exit codes: 0 described, 1 failed, 2 there is no model, or an unknown one."""


@click.command("info", epilog=EPILOG)
@click.argument("model", type=click.Path(path_type=Path))
@json_option
def command(model: Path, as_json: bool) -> None:
    """Describe a model without loading it: sizes, memory, licence.

    MODEL is a run directory, one of its checkpoints, a directory in Hugging
    Face format, or a GGUF file.
    """
    from clearseek.model.inspect import inspect_model

    info = inspect_model(model)
    if as_json:
        print_json(info.to_dict())
        return
    for name, value in _rows(info).items():
        click.echo(f"{name:<13} {value}")
    click.echo()
    print_columns(_memory(info))


def _rows(info: "ModelInfo") -> dict[str, str]:
    active = "" if info.active_parameters == info.parameters else f", {info.active_parameters:,} active"
    mtp = f" (and {info.mtp_parameters:,} for multi-token prediction)" if info.mtp_parameters else ""
    stored = ", ".join(f"{kind} {byte_words(size)}" for kind, size in info.stored.items())
    machine = info.machine_memory_bytes
    return {
        "model": f"{info.path} ({info.format})",
        "family": f"{info.family} ({info.architecture})",
        "parameters": f"{info.parameters:,}{active}{mtp}",
        "shape": _shape(info),
        "context": f"{info.context_length:,} tokens",
        "vocabulary": f"{info.vocabulary:,} tokens",
        "weights": stored or "absent: only the config is here",
        **({"left unread": f"{_unread(info)}; saving loses them"} if info.unread else {}),
        "licence": info.licence or "not said",
        "this machine": "memory unknown" if machine is None else f"{byte_words(machine)} of memory",
    }


def _unread(info: "ModelInfo") -> str:
    return ", ".join(f"{count} tensors {pattern}" for pattern, count in info.unread.items())


def _shape(info: "ModelInfo") -> str:
    heads = f"{info.heads} heads, latent keys and values"
    if info.key_value_heads is not None:
        heads = f"{info.heads} heads on {info.key_value_heads} of keys and values"
    experts = f", {info.active_experts} of {info.experts} experts" if info.experts else ""
    shared = f" and {info.shared_experts} shared" if info.shared_experts else ""
    return f"{info.layers} layers of width {info.hidden_size:,}, {heads}{experts}{shared}"


def _memory(info: "ModelInfo") -> list[list[str]]:
    words = {True: "yes", False: "no", None: "unknown"}
    rows = [
        [need.dtype, byte_words(need.weights_bytes), byte_words(need.cache_bytes), words[need.fits]]
        for need in info.memory
    ]
    return [["dtype", "weights", "per 1,000 tokens", "fits"], *rows]
