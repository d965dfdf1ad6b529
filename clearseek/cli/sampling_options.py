"""The options that say how an answer is drawn, grouped in --help; the names and bounds are the engine's `Sampling`."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from clearseek.cli.options import FiniteRange

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_CONSTRAINTS = ("json_schema", "json_object", "regex", "grammar", "choice")


class GroupedOption(click.Option):
    """An option that --help lists under `group`."""

    def __init__(self, *arguments: Any, group: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose --help lists its options in groups, those without one first."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            if not isinstance(parameter, click.Option):
                continue
            record = parameter.get_help_record(context)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for name, records in sorted(groups.items(), key=lambda group: group[0] != "Options"):
            with formatter.section(name):
                formatter.write_dl(records)


def _read_bias(
    context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]
) -> dict[int, float]:
    bias = {}
    for pair in pairs:
        token, _, value = pair.partition("=")
        try:
            bias[int(token)] = float(value)
        except ValueError:
            raise click.BadParameter(
                f"{pair!r} is not ID=VALUE, such as 42=-100", context, parameter
            ) from None
    return bias


_DRAWING: dict[str, dict[str, Any]] = {
    "--temperature": {"type": FiniteRange(min=0), "help": "0 takes the likeliest token. [default: 0.6]"},
    "--top-p": {"type": float, "help": "Draw from the likeliest tokens that hold this share. [default: 0.95]"},
    "--top-k": {"type": int, "help": "Draw from so many likeliest tokens; 0: all."},
    "--min-p": {"type": float, "help": "Draw from tokens at least this times as likely as the likeliest."},
    "--repetition-penalty": {"type": float, "help": "Above 1: fewer tokens of prompt and answer again."},
    "--frequency-penalty": {"type": float, "help": "Off a token's score for each time the answer has it."},
    "--presence-penalty": {"type": float, "help": "Off a token's score once the answer has it."},
    "--logit-bias": {
        "multiple": True, "metavar": "ID=VALUE", "callback": _read_bias, "help": "Added to a token's score.",
    },
}  # fmt: skip
_ENDING: dict[str, dict[str, Any]] = {
    "--stop": {
        "multiple": True,
        "metavar": "TEXT",
        "help": "A text that ends the answer and is cut from it.",
    },
    "--ignore-eos": {"is_flag": True, "help": "Go on after the model's own end, up to --max-tokens."},
    "--thinking-budget": {"type": int, "metavar": "TOKENS", "help": "Close the thought after so many."},
}
_FORM: dict[str, dict[str, Any]] = {
    "--json-schema": {"type": _FILE, "help": "A JSON document that this schema describes."},
    "--json-object": {"is_flag": True, "help": "Any JSON object."},
    "--regex": {"metavar": "PATTERN", "help": "Text that a regular expression matches as a whole."},
    "--grammar": {"type": _FILE, "help": "Text of a grammar in Lark's syntax, from its rule `start`."},
    "--choice": {"multiple": True, "metavar": "TEXT", "help": "One of these texts."},
    "--fast-forward": {"is_flag": True, "help": "Put what alone can come next there at once, undrawn."},
}
_SPEED: dict[str, dict[str, Any]] = {
    "--format": {
        "metavar": "FORMAT",
        "help": "How weights are kept: float32, bfloat16, int8 or int4, with :GROUP (32, 64, 128) behind the last two, "
        "on GPUs fp8 too, "
        "and parts in others: int4:64,head=int8. [default: the device's best]",
    },
    "--speculation": {
        "metavar": "KIND",
        "help": "Guess tokens ahead by mtp, ngram or a draft model's directory; answers stay the same.",
    },
    "--cache-gib": {
        "type": FiniteRange(min=0, min_open=True),
        "metavar": "GIB",
        "help": "The most memory for what is known of texts. [default: half of what is free]",
    },
    "--exact": {
        "is_flag": True,
        "help": "The same bits whatever is answered beside it; without, long prompts are read faster where latents are "
        "long. [default: where it costs little]",
    },
}
_GROUPS = {
    "How tokens are drawn (defaults: the model's generation_config.json first)": _DRAWING,
    "What ends an answer": _ENDING,
    "What an answer looks like (after the thought; one of these)": _FORM,
    "Weights and speed": _SPEED,
}


def sampling_options(command: Decorated) -> Decorated:
    """Give a command all of them, as `settings` for `Sampling`, and how a model is opened as `how` for `open_session`.

    Only what was given is in `settings`.
    """

    @wraps(command)
    def called(**values: Any) -> Any:
        given = {name: values.pop(name) for name in names}
        how = {name: given.pop(name) for name in ("speculation", "cache_gib")}
        how |= {"form": given.pop("format"), "exact": given.pop("exact") or None}
        return command(settings=_settings(given), how=how, **values)

    names = []
    decorated: Any = called
    for group, options in reversed(_GROUPS.items()):
        for flag, settings in reversed(options.items()):
            names.append(flag.removeprefix("--").replace("-", "_"))
            decorated = click.option(flag, cls=GroupedOption, group=group, **settings)(decorated)
    result: Decorated = decorated
    return result


def check_early(settings: dict[str, Any], max_tokens: int | None) -> None:
    """Refuse settings that no model can be asked for, before one is opened."""
    from clearseek.engine.defaults import check_settings

    check_settings(settings, max_tokens)


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    is_fast = given.pop("fast_forward")
    constraint = _constraint({name: given.pop(name) for name in _CONSTRAINTS})
    if is_fast and constraint is None:
        raise click.UsageError(
            "--fast-forward is for answers that are held to something, as by --json-schema"
        )
    if is_fast:
        constraint = replace(constraint, fast_forward=True)
    settings = {name: value for name, value in given.items() if not _is_left_out(value)}
    return settings if constraint is None else {**settings, "constraint": constraint}


def _is_left_out(value: Any) -> bool:
    """Whether an option was not given; 0 was."""
    return value is None or value is False or value in ((), {})


def _constraint(given: dict[str, Any]) -> Any:
    from clearseek.engine import constraint

    asked = [name for name, value in given.items() if value]
    if len(asked) > 1:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise click.UsageError(f"{flags} can't both be obeyed; give one of them")
    match asked:
        case ["json_schema"]:
            return constraint.json_schema(_text(given["json_schema"]))
        case ["json_object"]:
            return constraint.json_object()
        case ["regex"]:
            return constraint.regex(given["regex"])
        case ["grammar"]:
            return constraint.lark(_text(given["grammar"]))
        case ["choice"]:
            return constraint.choice(list(given["choice"]))
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not text in UTF-8") from None
