"""An answer that is a JSON value, compared by content."""

import json
from decimal import Decimal
from typing import Any

from clearseek.tasks.verifiers.verdict import Verdict, verdict_of

_LONGEST = 100_000
_DEEPEST = 64


class _Malformed(ValueError):
    """JSON that the standard library would take but the standard would not, or that is meant to hurt."""


def json_value(candidate: str, answer: str) -> Verdict:
    """The same JSON value: order of keys and spaces don't matter, types do (1 is not true, "1" is not 1).

    Nothing may stand around it; duplicate keys, NaN, Infinity and more than 64 levels are unparseable.
    """
    try:
        reference = _parse(answer)
    except (ValueError, RecursionError):
        return Verdict.error
    try:
        read = _parse(candidate)
    except (ValueError, RecursionError):
        return Verdict.unparseable
    return verdict_of(_same(read, reference))


def _parse(text: str) -> object:
    if len(text) > _LONGEST:
        raise _Malformed("too long")
    hooks: dict[str, Any] = {"object_pairs_hook": _no_duplicates, "parse_constant": _no_constant}
    value = json.loads(text, parse_float=Decimal, **hooks)
    if _depth_exceeds(value, _DEEPEST):
        raise _Malformed("too deep")
    return value


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Malformed("a key twice")
    return found


def _no_constant(name: str) -> object:
    raise _Malformed(name)


def _depth_exceeds(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for node in level for child in _children(node)]
        if not level:
            return False
    return True


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _same(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, Decimal)) and isinstance(b, (int, Decimal)):
        return a == b
    return type(a) is type(b) and a == b
