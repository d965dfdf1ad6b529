"""What one rendering of a chat template may cost: a template is a program that came with a model.

Units are spent for characters made, loop rounds, calls and elements looked at, so the same conversation stops
at the same place on every machine; a clock of processor time stands behind them. What an operation will make
is foreseen where it can be much more than what it is given, since nothing stops it half way.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, cast

_BASE_UNITS = 2**27  # one unit: a character made; a conversation of 1 MB takes some ten million
_UNITS_PER_INPUT = 64  # besides, for every character and element of the conversation
_TICK = 64  # a loop round or a filter, about a microsecond of work
_LOOK = 32  # an element of a container looked at
_DEEPEST = 64  # containers within containers
_MOST_BITS = 4096  # of a whole number
_CPU_SECONDS = 5.0
_SECONDS_PER_INPUT = 1e-5  # some templates look at every message for every message
_MOST_CPU_SECONDS = 60.0
_UNITS_PER_LOOK = 2**14  # after which the processor's clock, slow to read, is read again
_SCALARS = frozenset((str, bytes, int, float, bool, type(None)))
_GROUPS: tuple[type, ...] = (set, frozenset, type({}.keys()), type({}.values()), type({}.items()))
_PERCENT_FORMAT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(\*|\d*)(?:\.(\*|\d*))?")
_DIGITS = re.compile(r"\d+")


class TemplateLimit(RuntimeError):
    """A template asked for more than a rendering may cost; the message says of what."""


class Meter:
    """The units left to one rendering."""

    def __init__(self) -> None:
        """Start with what an empty conversation may cost, and with the processor's clock as it is."""
        self.left = _BASE_UNITS
        self._known: dict[int, int] = {}
        self._began = time.thread_time()
        self._seconds = _CPU_SECONDS
        self._next_look = self.left - _UNITS_PER_LOOK

    def allow_for(self, value: Any) -> None:
        """Allow for an input of the template; what it holds must live and stay as it is while it renders."""
        units = self._learn(value)
        self.left += _UNITS_PER_INPUT * units
        self._next_look = self.left - _UNITS_PER_LOOK
        self._seconds = min(self._seconds + _SECONDS_PER_INPUT * units, _MOST_CPU_SECONDS)

    def spend(self, units: int) -> None:
        """Take units; raises TemplateLimit where none are left, or where the clock has run out."""
        self.left -= units
        if self.left < self._next_look:
            self._look()

    def _look(self) -> None:
        if self.left < 0:
            raise TemplateLimit("it makes more than a chat template may; it may loop without end")
        if time.thread_time() - self._began > self._seconds:
            raise TemplateLimit(f"it took more than {self._seconds:.0f} seconds; it may loop without end")
        self._next_look = max(self.left - _UNITS_PER_LOOK, 0)

    def tick(self, static: int = 0) -> None:
        """One loop round, filter or call, and the fixed text that it may write."""
        self.spend(_TICK + abs(static))

    def admit(self, value: Any) -> Any:
        """Pay for a value that the template made and hand it on; an iterator pays as it is read."""
        if isinstance(value, str | bytes):
            self.spend(len(value))
        elif type(value) not in _SCALARS:
            if isinstance(value, Iterator):
                return self._paid(value)
            self.size(value)
        return value

    def read(self, value: Any) -> Any:
        """Pay for comparing or searching a value, and hand it on."""
        if isinstance(value, str | bytes):
            self.spend(1 + len(value) // 64)
        elif type(value) not in _SCALARS:
            self.spend(self.size(value))
        return value

    def size(self, value: Any, depth: int = 0) -> int:
        """Characters and elements that `value` would have written out; what is held twice counts twice.

        Raises TemplateLimit where that is more than the units left, or where containers nest too deep.
        """
        parts = _parts(value)
        if parts is None:
            return len(value) + 1 if isinstance(value, str | bytes) else 1
        if (known := self._known.get(id(value))) is not None:
            return known
        if depth == _DEEPEST:
            raise TemplateLimit(f"it nests containers more than {_DEEPEST} deep")
        self.spend(_LOOK * (1 + len(parts)))
        total = 1
        for part in parts:
            total += self.size(part, depth + 1)
            if total > self.left:
                raise TemplateLimit("it makes a container with more in it than a chat template may")
        return total

    def _learn(self, value: Any) -> int:
        """Remember the size of every container in an input, so that it is never counted again."""
        parts = _parts(value)
        if parts is None:
            return 1
        total = 1
        for part in parts:
            total += 1 + len(part) if type(part) is str else self._learn(part)
        self._known[id(value)] = total
        return total

    def _paid(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.spend(_LOOK + self.size(value))
            yield value

    def listed(self, values: Iterable[Any]) -> Sequence[Any]:
        """`values` as a sequence, each paid for, though they come one by one."""
        return values if isinstance(values, list | tuple) else list(self._paid(values))

    def foresee_product(self, left: Any, right: Any) -> None:
        """Pay for `left * right` before it is made."""
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, str | bytes | list | tuple) and isinstance(times, int):
                self.spend(self.size(sequence) * max(times, 0))
        self._foresee_bits(_bits(left) + _bits(right))

    def foresee_power(self, base: Any, exponent: Any) -> None:
        """Refuse `base ** exponent` where the whole number would be large."""
        if isinstance(base, int) and isinstance(exponent, int):
            self._foresee_bits(_bits(base) * abs(exponent))

    def foresee_percent(self, text: Any, values: Any) -> None:
        """Pay for `text % values`, with the widths that the text asks for."""
        if not isinstance(text, str):
            return
        widths = [width for pair in _PERCENT_FORMAT.findall(text) for width in pair if width]
        given = values if isinstance(values, tuple) else (values,)
        starred = sum(abs(value) for value in given if isinstance(value, int)) if "*" in widths else 0
        self.spend(len(text) + sum(_width(width) for width in widths if width != "*") + starred)
        self.spend(self.size(values) * (1 + len(widths)))

    def foresee_spec(self, spec: str) -> None:
        """Pay for the widths of a format specification such as `>100`."""
        self.spend(_LOOK + sum(map(_width, _DIGITS.findall(spec))))

    def foresee_replacement(self, text: str, old: Any, new: Any) -> None:
        """Pay for what replacing `old` by `new` in `text` makes."""
        if isinstance(old, str) and isinstance(new, str):
            self.spend(text.count(old) * len(new))

    def foresee_join(self, separator: Any, values: Sequence[Any]) -> None:
        """Pay for joining `values`."""
        self.spend(self.size(values) + len(values) * len(str(separator)))

    def foresee_method(self, owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Pay for what a method of a text, number or container makes, where that can be much."""
        given = [*args, *kwargs.values()]
        if name in ("center", "ljust", "rjust", "zfill", "to_bytes"):
            self.spend(_numbers(given))
        elif name == "expandtabs":
            self.spend(len(owner) * (8 + _numbers(given)))
        elif name in ("split", "rsplit", "splitlines", "partition", "rpartition"):
            separator = given[0] if given and isinstance(given[0], type(owner)) and given[0] else None
            self.spend(64 * owner.count(separator) if separator else 8 * len(owner))
        elif name == "replace" and len(given) > 1:
            self.foresee_replacement(owner, *given[:2])
        elif name == "translate" and given:
            self.spend(len(owner) * self.size(given[0]))
        elif name in ("encode", "decode") and not {*given} <= {"utf-8", "utf8", "ascii", "strict", "ignore"}:
            raise TemplateLimit(f"it calls {name} with an encoding other than utf-8")
        else:
            self.read(owner)

    def _foresee_bits(self, bits: int) -> None:
        if bits > _MOST_BITS:
            raise TemplateLimit(f"it makes a whole number of more than {_MOST_BITS} bits")


CURRENT_METER: ContextVar[Meter] = ContextVar("current_meter")


def current_meter() -> Meter:
    """The meter of the rendering that is going on."""
    meter = CURRENT_METER.get(None)
    assert meter is not None, "a template is rendered without a meter"
    return meter


def _parts(value: Any) -> Sequence[Any] | None:
    """What a container holds, keys included; None for anything else."""
    kind = type(value)
    if kind in _SCALARS:
        return None
    if kind is list or isinstance(value, list | tuple):
        return cast(Sequence[Any], value)
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, _GROUPS):
        return [*cast(Iterable[Any], value)]
    try:
        attributes = object.__getattribute__(value, "_Namespace__attrs")  # a namespace, as Jinja stores it
    except AttributeError:
        return None
    return [*attributes.keys(), *attributes.values()]


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _numbers(values: Iterable[Any]) -> int:
    return sum(abs(value) for value in values if isinstance(value, int))


def _width(digits: str) -> int:
    """A width as a number; one with many digits is large enough without being read."""
    return int(digits) if len(digits) < 10 else 10**10
