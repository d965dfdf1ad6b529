"""What stands between a chat template and Jinja's filters, tests and output: the meter, paid before and after."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jinja2

from clearseek.text.meter import Meter, current_meter

# The meter as filters, which the sandbox puts around parts of a template; no template can write a blank.
TICK, ADMIT, READ = "meter tick", "meter admit", "meter read"
COMPARING_TESTS = (
    "eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "le", "<=", "gt", ">", "greaterthan", "ge", ">=", "in",
)  # fmt: skip
# Filters that may take time with the square of what they are given.
_SUPERLINEAR = ("urlize", "striptags", "wordwrap", "xmlattr", "sum", "wordcount", "title", "pprint")


def meter_operations(operations: dict[str, Any], tests: dict[str, Any]) -> None:
    """Put every filter of `operations`, and every test that compares, on the meter, in place."""
    operations |= {name: _metered_filter(name, work) for name, work in operations.items()}
    operations |= {TICK: _tick, ADMIT: _admit, READ: _read}
    tests |= {name: _metered_test(tests[name]) for name in COMPARING_TESTS}


@jinja2.pass_context
def finalize(context: Any, value: Any) -> Any:
    """Pay for what a template writes, and hand it on (Jinja's `finalize`)."""
    meter = current_meter()
    if isinstance(value, str):
        meter.spend(len(value))
    else:
        meter.spend(meter.size(value))
    return value


@jinja2.pass_context  # what is passed the context is not computed when the template is compiled
def _tick(context: Any, static: int) -> None:
    current_meter().tick(static)


def _admit(value: Any) -> Any:
    return current_meter().admit(value)


def _read(value: Any) -> Any:
    return current_meter().read(value)


def _metered_filter(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pays before and after."""
    first = 1 if hasattr(work, "jinja_pass_arg") else 0

    @functools.wraps(work)
    def metered(*args: Any, **kwargs: Any) -> Any:
        meter = current_meter()
        meter.tick()
        if len(args) > first:
            value = args[first]
            if name == "join":
                value = meter.listed(value)
                args = (*args[:first], value, *args[first + 1 :])
            _foresee_filter(meter, name, value, [*args[first + 1 :], *kwargs.values()])
        return meter.admit(work(*args, **kwargs))

    return metered


def _foresee_filter(meter: Meter, name: str, value: Any, given: Sequence[Any]) -> None:
    """Pay for what a filter will make of `value`, where that can be much more than `value`."""
    length = len(value) if isinstance(value, str | list | tuple | dict | range) else 1
    meter.spend(length // 64)
    numbers = sum(abs(number) for number in given if isinstance(number, int))
    if name in _SUPERLINEAR:
        meter.spend((length // 4) ** 2)
    if name == "join":
        meter.foresee_join(given[0] if given else "", value)
    elif name == "replace" and len(given) > 1:
        meter.foresee_replacement(str(value), *given[:2])
    elif name == "format":
        meter.foresee_percent(value, tuple(given))
    elif name == "indent":
        meter.spend((1 + str(value).count("\n")) * (numbers + _length_of_texts(given)))
    elif name == "tojson":
        meter.spend(meter.size(value) * (1 + numbers + _length_of_texts(given)))
    elif name in ("wordwrap", "xmlattr", "urlize", "truncate"):
        meter.spend((1 + length) * (1 + _length_of_texts(given)))
    elif name in ("center", "batch", "slice", "round"):
        meter.spend(numbers * numbers if name == "round" else 8 * numbers)
    elif name in ("sort", "unique", "dictsort", "groupby", "min", "max"):
        meter.spend(64 * length + meter.size(value))
    elif name in ("list", "reverse"):
        meter.spend(8 * length)


def _length_of_texts(values: Iterable[Any]) -> int:
    """Characters of the texts among a filter's arguments, such as separators."""
    flat = [part for value in values for part in (value if isinstance(value, list | tuple) else [value])]
    return sum(len(value) for value in flat if isinstance(value, str))


def _metered_test(work: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(work)
    def metered(*args: Any) -> Any:
        meter = current_meter()
        return work(*map(meter.read, args))

    return metered
