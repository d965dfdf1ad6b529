"""Equality of mathematical expressions by the math-verify library, behind a gate that its guesses need.

math-verify looks for an answer anywhere in a text, and takes 9% for 9 or the last of several equations. Here
the candidate must be one bare expression. Its time limits use signals, which fail silently off the main
thread, so they are off: the worker that runs this is stopped from outside. Its extractor of plain expressions
calls Python's evaluator, so only its LaTeX parser is used, and that without the evaluator. Equivalence cannot
see whether a step was done: where the task is to simplify, `exact` is the better verifier.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from itertools import accumulate
from typing import Any

from clearseek.tasks.verifiers.fold import fold, unwrap
from clearseek.tasks.verifiers.number import Number, read_number
from clearseek.tasks.verifiers.verdict import Verdict, verdict_of

_LONGEST = 500
_RELATIVE_TOLERANCE = Fraction(1, 10**6)
_FRACTION = re.compile(r"(?P<sign>-?)\s*\\[dt]?frac(?:\{(\d+)\}|(\d))(?:\{(\d+)\}|(\d))", re.ASCII)
_NUMERAL = re.compile(r"Integer *\( *(?P<whole>\d+) *\)|Float *\( *'(?P<decimal>[\d.]+)' *\)", re.ASCII)
_DEEPEST = 20
_FUNCTIONS = re.compile(
    "(?:arc)?(?:sin|cos|tan)|(?:sin|cos|tan)h|cot|sec|csc|log|ln|exp|sqrt|pi|[pbv]?matrix"
)
_RELATIONS = re.compile(
    r"[=<>≠≤≥≈∈→;]|\\(?:le|leq|ge|geq|lt|gt|ne|neq|approx|sim|equiv|in|to|mid|vee|wedge|lor|land|lnot|neg"
    r"|implies|iff|rightarrow|Rightarrow|leftrightarrow|Leftrightarrow|quad|qquad)(?![A-Za-z])"
)
_MIRRORED = {">": "<", "≥": "≤", "\\ge": "\\le", "\\geq": "\\leq", "\\gt": "\\lt"}
_FOREIGN = re.compile(r"[$\n%]|\\boxed|\\\\(?!\[)")
_EXPLOSIVE = re.compile(r"\d{30,}|\^\s*\{?\s*-?\d{4,}|\^[^+\-,]*\^|!")
_ASSIGNMENT = re.compile(r"\s*[A-Za-z](?:\([a-z]\))?\s*=")


def math(candidate: str, answer: str) -> Verdict:
    """The same value or expression as `answer`, which is LaTeX or a plain number."""
    reference = unwrap(fold(answer))
    if not reference:
        return Verdict.error
    read = unwrap(fold(candidate))
    known = _read_fraction(reference)
    if known is not None:
        return _as_numbers(read, known, reference)
    if "=" not in reference:
        read = _ASSIGNMENT.sub("", read, count=1)
    if not _is_bare(read, reference):
        return Verdict.unparseable
    return _by_library(read, reference)


def _read_fraction(text: str) -> Number | None:
    if found := _FRACTION.fullmatch(text):
        above, below = (digits for digits in found.groups()[1:] if digits)
        text = f"{found['sign']}{above}/{below}"
    return read_number(text)


def _as_numbers(read: str, known: Number, reference: str) -> Verdict:
    """A number for a number: a decimal may be rounded to six digits, arithmetic left undone is no answer."""
    found = _read_fraction(read)
    if found is None or found.unit != known.unit or not (found.reduced or read == reference):
        return Verdict.unparseable
    rounded = "." in read or "." in reference
    allowed = abs(known.value) * _RELATIVE_TOLERANCE if rounded else 0
    return verdict_of(abs(found.value - known.value) <= allowed)


def _is_bare(text: str, reference: str) -> bool:
    """Whether the text is one expression of the reference's kind, without words, choices or huge powers."""
    if not text or len(text) > _LONGEST or _nesting(text) > _DEEPEST:
        return False
    if _FOREIGN.search(_without_shared(text, reference)):
        return False
    if _relations(text) != _relations(reference):
        return False
    if _EXPLOSIVE.search(text) and not _EXPLOSIVE.search(reference):
        return False
    letters = set(re.findall(r"[^\W\d_]", reference))
    words = re.findall(r"[^\W\d_]{2,}", re.sub(r"\\[A-Za-z]+", " ", text))
    return all(_FUNCTIONS.fullmatch(word) or set(word) <= letters for word in words)


def _nesting(text: str) -> int:
    return max(accumulate((mark in "{[(") - (mark in ")]}") for mark in text))


def _relations(text: str) -> list[str]:
    return sorted(_MIRRORED.get(relation, relation) for relation in _RELATIONS.findall(text))


def _without_shared(text: str, reference: str) -> str:
    """Marks that the reference has too are allowed: its percent sign, its rows of a matrix."""
    for mark in ("\\\\", "\\%", "%"):
        if mark in reference:
            text = text.replace(mark, "")
    return text


def _by_library(read: str, reference: str) -> Verdict:
    gold = _parse(reference)
    if gold is None:
        return Verdict.error
    found = _parse(read)
    if found is None or _is_undefined(found):
        return Verdict.unparseable
    from math_verify import verify

    return verdict_of(bool(verify(gold, found, float_rounding=9, timeout_seconds=None, raise_on_error=True)))


def _is_undefined(expression: Any) -> bool:
    from sympy import Basic, nan, oo, zoo

    return isinstance(expression, Basic) and expression.has(nan, zoo) and not expression.has(oo)


def _parse(text: str) -> Any | None:
    from math_verify import parse

    with _numerals_only():
        found = parse(
            f"\\boxed{{{text}}}",
            extraction_config=[_latex_only()],
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,
            raise_on_error=False,
        )
    return found[0] if len(found) == 1 else None


@contextmanager
def _numerals_only() -> Iterator[None]:
    """Without sympy's evaluator: even a plain numeral becomes a number by way of Python's `eval` there."""
    from sympy.parsing import sympy_parser

    evaluator = sympy_parser.eval_expr
    sympy_parser.eval_expr = _numeral
    try:
        yield
    finally:
        sympy_parser.eval_expr = evaluator


def _numeral(code: str, *_: object) -> Any:
    """What sympy writes for a numeral (`Integer (2 )`, `Float ('1.5' )`), read; anything else is refused."""
    from sympy import Float, Integer

    found = _NUMERAL.fullmatch(code.strip())
    if not found:
        raise ValueError(f"not a numeral: {code[:40]!r}")
    return Integer(int(found["whole"])) if found["whole"] else Float(found["decimal"])


@cache
def _latex_only() -> Any:
    from math_verify import LatexExtractionConfig

    for name in ("math_verify.parser", "math_verify.grader"):  # they warn that the limits are off
        logging.getLogger(name).setLevel(logging.ERROR)
    return LatexExtractionConfig()
