"""Arguments that are written one by one between tags, as text; read here into one JSON object."""

import json
from collections.abc import Mapping
from typing import Any

from clearseek.text.tool_calls.calls import Calls
from clearseek.text.tool_calls.events import Event
from clearseek.text.tool_calls.reader import NotACall, Steps

_KINDS: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
_PYTHON = {
    "True": "true",
    "False": "false",
    "None": "null",
}  # how templates write them that don't ask for JSON


class Parameters:
    """One call's arguments. Types are those of the tool's schema, since the text alone doesn't tell "2" from 2."""

    def __init__(self, calls: Calls, name: str) -> None:
        schema = calls.schemas.get(name, {})
        properties = schema.get("properties")
        self._properties: Mapping[str, Any] = properties if isinstance(properties, dict) else {}
        self._definitions = schema
        self._calls, self._keys = calls, set[str]()

    def value(self, key: str, closers: tuple[str, ...], is_text: bool | None = None) -> Steps[str]:
        """The value up to a closing tag, which is given back. `is_text`: the format itself says if it is JSON or not.

        A text goes out as it comes. A value that is not of its type, or no JSON, stays the text that it is.
        """
        if key in self._keys:
            raise NotACall
        yield self._calls.arguments(
            (", " if self._keys else "{") + json.dumps(key, ensure_ascii=False) + ": "
        )
        self._keys.add(key)
        kinds = self._kinds(key)
        if is_text or (is_text is None and kinds == {"string"}):
            yield self._calls.arguments('"')
            closer = yield from self._calls.reader.until(closers, self._escaped)
            if not closer:
                raise NotACall
            yield self._calls.arguments('"')
        else:
            text, closer = yield from self._calls.reader.collect(closers)
            yield self._calls.arguments(_as_json(text, kinds, is_json=is_text is False))
        return closer

    def end(self) -> Steps[None]:
        """The last argument was read."""
        yield self._calls.arguments("}" if self._keys else "{}")
        yield self._calls.end()

    def _escaped(self, text: str) -> Event:
        return self._calls.arguments(json.dumps(text, ensure_ascii=False)[1:-1])

    def _kinds(self, key: str) -> frozenset[str]:
        return frozenset(_kinds(self._properties.get(key), self._definitions))


def _kinds(schema: Any, root: Mapping[str, Any], depth: int = 0) -> set[str]:
    """The types that a schema allows; none where it doesn't say."""
    if not isinstance(schema, dict) or depth > 8:
        return set()
    if isinstance(reference := schema.get("$ref"), str):
        return _kinds(_referred(reference, root), root, depth + 1)
    named = schema.get("type")
    if named is not None:
        return {str(one) for one in (named if isinstance(named, list) else [named])}
    values = [*_listed(schema, "enum"), *([schema["const"]] if "const" in schema else [])]
    found = {_KINDS.get(type(value), "null") for value in values}
    for one in (one for word in ("anyOf", "oneOf", "allOf") for one in _listed(schema, word)):
        found |= _kinds(one, root, depth + 1)
    return found


def _listed(schema: Mapping[str, Any], word: str) -> list[Any]:
    value = schema.get(word)
    return value if isinstance(value, list) else []


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    place: Any = root
    for name in reference.removeprefix("#/").split("/") if reference.startswith("#/") else ["?"]:
        place = place.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
    return place


def _as_json(text: str, kinds: frozenset[str], is_json: bool) -> str:
    """JSON for a value, of one of `kinds` if there are any. `is_json`: that is what it was written as."""
    written = text.strip() if is_json else _PYTHON.get(text.strip(), text.strip())
    try:
        kind = _KINDS.get(type(json.loads(written, parse_constant=_refuse)), "null")
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    if is_json:
        return written
    fits = not kinds or kind in kinds or (kind == "integer" and "number" in kinds)
    return written if fits and kind != "string" else json.dumps(text, ensure_ascii=False)


def _refuse(name: str) -> None:
    raise ValueError(name)
