"""Formats by part of a model: scores' matrix, attention, experts, layer by layer where one likes; and as text."""

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from clearseek.config.errors import InputError
from clearseek.engine.formats import NAMES, Format, FormatName
from clearseek.model.decoder import Decoder, Layer
from clearseek.model.experts import MixtureOfExperts


@dataclass(frozen=True)
class Formats:
    """`base`, and other formats for the parts whose name a pattern matches, the last that does; see `part_names`.

    A pattern without a dot means the last word of a name: "attention" is that of every layer. All that are quantised
    have the same group; InputError where they haven't. Where it `is_as_stored`, what lies in a file in Q8_0 or Q4_0
    stays as it is there, and what lies there in other types is bfloat16.
    """

    base: Format
    others: tuple[tuple[str, Format], ...] = ()
    is_as_stored: bool = False

    def __post_init__(self) -> None:
        groups = {form.group for form in self._all if form.has_group}
        if len(groups) > 1:
            listed = " and ".join(map(str, sorted(groups)))
            raise InputError(f"a model's weights have one group, not {listed}")

    @property
    def _all(self) -> list[Format]:
        return [self.base, *(form for _, form in self.others)]

    @property
    def names(self) -> frozenset[FormatName]:
        """Of all formats that it means."""
        return frozenset(form.name for form in self._all)

    @property
    def name(self) -> FormatName:
        """Of the base; activations follow it."""
        return self.base.name

    @property
    def group(self) -> int:
        """Of all that have one."""
        return next((form.group for form in self._all if form.has_group), self.base.group)

    @property
    def widens(self) -> bool:
        """Whether the engine may take a wider group."""
        return any(form.widens for form in self._all)

    def with_group(self, group: int) -> "Formats":
        """The same with a group that is settled."""
        others = tuple((pattern, form.with_group(group)) for pattern, form in self.others)
        return Formats(self.base.with_group(group), others, self.is_as_stored)

    @property
    def is_quantised(self) -> bool:
        """Whether any of them is."""
        return any(form.is_quantised for form in self._all)

    def of(self, part: str) -> Format:
        """The format of a part by its name."""
        return next((form for pattern, form in reversed(self.others) if _matches(pattern, part)), self.base)

    def check(self, names: Collection[str]) -> None:
        """InputError for a pattern that matches none of a model's parts."""
        for pattern, _ in self.others:
            if not any(_matches(pattern, name) for name in names):
                known = dict.fromkeys(name.rpartition(".")[2] for name in names)
                raise InputError(f"no part of this model is called {pattern!r}; there are {', '.join(known)}")


def stored_formats(model: Decoder) -> Formats | None:
    """The formats of a model's file, where it keeps weights in whole numbers."""
    kinds = [] if model.stored is None else model.stored.kinds
    return Formats(Format(kinds[0]), is_as_stored=True) if kinds else None


def part_names(model: Decoder) -> list[str]:
    """`head`, and of each layer `layers.N.attention`, `.feed_forward` (its own or the shared expert) and `.experts`."""
    names = ["head"]
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        names += [f"layers.{number}.attention", f"layers.{number}.feed_forward"]
        if isinstance(layer.feed_forward, MixtureOfExperts):
            names.append(f"layers.{number}.experts")
            if layer.feed_forward.shared is None:
                names.remove(f"layers.{number}.feed_forward")
    return names


def read_formats(text: str) -> Format | Formats:
    """Formats as they are written: a name, in int8 and int4 `:GROUP` behind it, then `,PATTERN=FORMAT` for parts.

    "int4:64,head=int8,layers.0.*=bfloat16". A group that isn't written is that of the others, else 32 with int4 and the
    widest that suits the model without, as int8 loses nothing by it. InputError for anything else.
    """
    first, *rest = text.split(",")
    pairs = [part.partition("=") for part in rest]
    for pattern, equals, _ in pairs:
        if not pattern or not equals:
            raise InputError(f"{pattern!r} in {text!r} is not PATTERN=FORMAT, such as head=int8")
    written = [first, *(form for _, _, form in pairs)]
    group = next(
        (int(form.partition(":")[2]) for form in written if form.partition(":")[2].isdecimal()), None
    )
    widens = group is None and "int4" not in written
    base, *others = (_read_one(form, group or 32, widens) for form in written)
    if not others:
        return base
    return Formats(base, tuple((pattern, form) for (pattern, _, _), form in zip(pairs, others, strict=True)))


def _read_one(text: str, group: int, widens: bool) -> Format:
    name, colon, written = text.partition(":")
    known = next((one for one in NAMES if one == name), None)
    if known is None:
        raise InputError(f"{name!r} is no weight format; there are {', '.join(NAMES)}")
    if colon and (known not in ("int8", "int4") or not written.isdecimal()):
        raise InputError(f"{text!r} is no weight format; a group stands behind int8 or int4, as in int4:32")
    return Format(known, int(written) if colon else group, widens and known == "int8")


def _matches(pattern: str, name: str) -> bool:
    return fnmatchcase(name if "." in pattern else name.rpartition(".")[2], pattern)
