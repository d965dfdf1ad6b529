"""What is wrong with a body that has not the shape it should have, in one line that names the field."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from clearseek.serve.errors import ApiError
from clearseek.serve.wire import Wire

_OF_UNIONS = (
    "str",
    "list[",
    "function-",
    "literal[",
    "NamedTool",
    "tagged-union",
)  # parts of a place that are no fields


def invalid(error: RequestValidationError | ValidationError) -> ApiError:
    """The first thing that is wrong; of what could be several things, as the one that it is most."""
    errors: Sequence[Any] = error.errors()
    if isinstance(error, ValidationError):  # of another API's shape: its places don't begin with "body"
        errors = [{**one, "loc": ("body", *one["loc"])} for one in errors]
    first = max(_about_the_same(errors), key=lambda one: len(one["loc"]))
    if first["type"] == "json_invalid":
        why = first.get("ctx", {}).get("error", first["msg"])
        return ApiError(400, f"the body is not JSON: {why}", code="invalid_json")
    place = ".".join(_place(first["loc"]))
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        return ApiError(400, f"{place}: there is no such field{_suggestion(name)}", param=place)
    message = f"{place}: {first['msg']}" if place else "the body has to be a JSON object"
    return ApiError(400, message, param=place or None)


def _about_the_same(errors: Sequence[Any]) -> list[Any]:
    """Errors of one union's alternatives, of which the first error is one."""
    place = errors[0]["loc"]
    cut = next((i for i, part in enumerate(place) if str(part).startswith(_OF_UNIONS)), None)
    return [errors[0]] if cut is None else [one for one in errors if one["loc"][:cut] == place[:cut]]


def _place(location: tuple[int | str, ...]) -> list[str]:
    return [str(part) for part in location[1:] if not str(part).startswith(_OF_UNIONS)]


def _suggestion(name: str) -> str:
    near = get_close_matches(name, sorted(_known_fields()), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _known_fields() -> set[str]:
    """Names that bodies have; a misspelt one is near to one of them."""
    found, left = set[str](), list[type[BaseModel]](Wire.__subclasses__())
    while left:
        kind = left.pop()
        found |= {field.alias or name for name, field in kind.model_fields.items()}
        left += kind.__subclasses__()
    return found
