"""Mistral's calls: `[TOOL_CALLS]` and a list of JSON objects, or, since 2025, `[TOOL_CALLS]NAME[ARGS]{…}` for each."""

from dataclasses import dataclass

from clearseek.text.tool_calls.calls import LONGEST_NAME, Calls, checked_name, stream_object
from clearseek.text.tool_calls.json_forms import list_of_calls
from clearseek.text.tool_calls.reader import NotACall, Steps

MARKER, ID, ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"


@dataclass(frozen=True)
class MistralCalls:
    """Both ways are read; `is_list` and `tells_id` say which the template writes."""

    is_list: bool
    tells_id: bool = False
    markers: tuple[str, ...] = (MARKER,)
    tokens: tuple[str, ...] = (MARKER, ID, ARGUMENTS)
    id_length: int = 9

    def read(self, calls: Calls, marker: str) -> Steps[None]:
        """One call, or a list."""
        if (yield from calls.reader.spaces()) == "[":
            yield from list_of_calls(calls)
        else:
            yield from _one(calls)


def _one(calls: Calls) -> Steps[None]:
    reader, own_id = calls.reader, ""
    said, closer = yield from reader.collect((ID, ARGUMENTS, "{"), LONGEST_NAME)
    if closer == ID:
        own_id, closer = yield from reader.collect((ARGUMENTS, "{"), LONGEST_NAME)
    if closer == "{":  # the token may have been left out
        reader.place -= 1
    if (yield from reader.spaces()) != "{":
        raise NotACall
    yield calls.start(checked_name(said), own_id.strip())
    yield from stream_object(calls)
