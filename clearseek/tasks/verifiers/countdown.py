"""An expression that must use given numbers once each and reach a target; read by a parser of its own."""

import re
from collections import Counter
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from clearseek.tasks.verifiers.fold import fold, unwrap
from clearseek.tasks.verifiers.verdict import Verdict, verdict_of

_LONGEST = 200
_TOKEN = re.compile(r"\s*([0-9]{1,9}(?![0-9])|[-+*/()])")
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/"})
_GOAL = re.compile(r"\s*([0-9]+(?:\s*,\s*[0-9]+)*)\s*=\s*([0-9]+)\s*")


class Expression(NamedTuple):
    """The numbers an expression uses, and its value (None where it divides by zero)."""

    numbers: Counter[int]
    value: Fraction | int | None


def countdown(candidate: str, answer: str) -> Verdict:
    """The candidate uses exactly the numbers of `answer` and has its value; `= VALUE` may follow.

    `answer` is an expression that does so (`(7-3)*5`), or the numbers and the target (`3,5,7=20`). Only
    + - * /, brackets and whole numbers are read: no signs before a number, no powers, no leading zeros.
    """
    reference = _reference(answer)
    if reference is None:
        return Verdict.error
    left, equals, right = unwrap(fold(candidate)).partition("=")
    read = read_expression(left)
    if read is None or (equals and not re.fullmatch(r"\s*[0-9]{1,18}\s*", right)):
        return Verdict.unparseable
    if equals and int(right) != reference.value:
        return Verdict.wrong
    return verdict_of(read == reference)


def _reference(answer: str) -> Expression | None:
    if goal := _GOAL.fullmatch(answer):
        return Expression(Counter(map(int, goal[1].split(","))), int(goal[2]))
    found = read_expression(answer)
    return found if found and found.value is not None else None


@lru_cache(maxsize=4096)
def read_expression(text: str) -> Expression | None:
    """The expression that the whole text is, else None."""
    text = text.translate(_SIGNS).strip()
    if not text or len(text) > _LONGEST:
        return None
    tokens = _tokens(text)
    if tokens is None:
        return None
    reader = _Reader(tokens)
    try:
        value = reader.sum()
    except _NotAnExpression:
        return None
    return Expression(reader.numbers, value) if reader.next == "" else None


def _tokens(text: str) -> list[str] | None:
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found or (len(found[1]) > 1 and found[1][0] == "0"):
            return None
        tokens.append(found[1])
        at = found.end()
    return tokens


class _NotAnExpression(ValueError):
    pass


class _Reader:
    """Recursive descent over sums, products and atoms; the text's length bounds its depth."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = iter(tokens)
        self.numbers: Counter[int] = Counter()
        self.next = ""
        self._advance()

    def _advance(self) -> str:
        taken, self.next = self.next, next(self._tokens, "")
        return taken

    def sum(self) -> Fraction | int | None:
        value = self._product()
        while self.next in ("+", "-"):
            sign = 1 if self._advance() == "+" else -1
            term = self._product()
            value = None if value is None or term is None else value + sign * term
        return value

    def _product(self) -> Fraction | int | None:
        value = self._atom()
        while self.next in ("*", "/"):
            operator = self._advance()
            factor = self._atom()
            if value is None or factor is None or (operator == "/" and factor == 0):
                value = None
            else:
                value = value * factor if operator == "*" else Fraction(value) / factor
        return value

    def _atom(self) -> Fraction | int | None:
        taken = self._advance()
        if taken.isdigit():
            self.numbers[int(taken)] += 1
            return int(taken)
        if taken != "(":
            raise _NotAnExpression
        value = self.sum()
        if self._advance() != ")":
            raise _NotAnExpression
        return value
