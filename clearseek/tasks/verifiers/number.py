"""A bare number, compared exactly."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from clearseek.tasks.verifiers.fold import fold, unwrap
from clearseek.tasks.verifiers.verdict import Verdict, verdict_of

_LONGEST = 64
_NUMBER = re.compile(
    r"(?:[A-Za-z] *= *)?"
    r"(?P<sign>[+-]?) *[$€£¥₩]? *"
    r"(?P<whole>(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:/(?P<denominator>[1-9][0-9]*))?"
    r" *(?P<unit>%|[^\W\d_]{1,20})?",
)


class Number(NamedTuple):
    """A number as written: its value, its unit or "", and whether as a fraction that could be shortened."""

    value: Fraction
    unit: str
    reduced: bool


@lru_cache(maxsize=4096)
def read_number(text: str) -> Number | None:
    """The number that the whole text is, else None; no exponents, no words around it."""
    text = unwrap(fold(text))
    if not text or len(text) > _LONGEST or not (found := _NUMBER.fullmatch(text)):
        return None
    whole = found["whole"].replace(",", "")
    denominator = int(found["denominator"] or 1)
    value = Fraction(whole) / denominator
    lowest = whole == str(value.numerator) and denominator == value.denominator > 1
    reduced = not found["denominator"] or lowest
    return Number(-value if found["sign"] == "-" else value, (found["unit"] or "").casefold(), reduced)


def number(candidate: str, answer: str) -> Verdict:
    """The same number; thousands commas, a currency sign, `x =`, a closing stop or a box around don't matter.

    The reference may carry a unit, which the candidate may repeat or (except %) leave out; no other passes. A
    fraction must be in lowest terms, or written as in the reference, so that a division copied from the
    prompt (84/2) is not an answer.
    """
    reference = read_number(answer)
    if reference is None:
        return Verdict.error
    read = read_number(candidate)
    if read is None or not _unit_fits(read.unit, reference.unit):
        return Verdict.unparseable
    if not read.reduced and fold(candidate) != fold(answer):
        return Verdict.unparseable
    return verdict_of(read.value == reference.value)


def _unit_fits(unit: str, expected: str) -> bool:
    return unit == expected or (not unit and expected != "%")
