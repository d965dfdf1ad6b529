"""An answer held against the types of OpenAI's own client."""

from pydantic import TypeAdapter


def strictly(kind, raw, ours=(), seen=None):
    """Read by the client's own type, and nothing in it that the type does not know, but `ours`: "Type.field".

    What there is of ours is added to `seen`.
    """
    read = TypeAdapter(kind).validate_python(raw, strict=True)
    unknown = {f"{type(one).__name__}.{name}" for one in objects(read) for name in one.model_extra or ()}
    assert unknown <= set(ours), sorted(unknown - set(ours))
    if seen is not None:
        seen |= unknown
    return read


def objects(value):
    """The objects within one another."""
    if isinstance(value, list):
        for item in value:
            yield from objects(item)
    elif hasattr(value, "model_fields_set"):
        yield value
        for name in type(value).model_fields:
            yield from objects(getattr(value, name))
