"""Llama 3's calls: the whole answer is `{"name": …, "parameters": {…}}`, or `<|python_tag|>` and a call."""

from dataclasses import dataclass

from clearseek.text.tool_calls.calls import LONGEST_NAME, Calls, checked_name, json_call
from clearseek.text.tool_calls.parameters import Parameters
from clearseek.text.tool_calls.reader import NotACall, Steps

TAG = "<|python_tag|>"
_LONGEST_KEY = 1000


@dataclass(frozen=True)
class LlamaCalls:
    """Nothing marks a call, so one counts only at the beginning, and if it names a tool that was given."""

    markers: tuple[str, ...] = (TAG,)
    tokens: tuple[str, ...] = (TAG,)
    id_length: int = 0
    begins_bare: bool = True  # a call may begin the answer without a marker

    def read(self, calls: Calls, marker: str) -> Steps[None]:
        """Calls, with semicolons between."""
        reader = calls.reader
        while True:
            if (yield from reader.spaces()) == "{":
                yield from json_call(calls, needs_arguments=True, knows_name=True)
            elif marker:
                yield from _builtin(calls)
            else:
                raise NotACall
            reader.keep()
            if (yield from reader.spaces()) != ";":
                return
            reader.place += 1


def _builtin(calls: Calls) -> Steps[None]:
    """`brave_search.call(query="…")`."""
    reader = calls.reader
    said, _ = yield from reader.collect((".call(",), LONGEST_NAME)
    name = checked_name(said)
    yield calls.start(name)
    parameters = Parameters(calls, name)
    yield from reader.spaces()
    closer = yield from reader.accept((")",))
    while not closer.endswith(")"):
        yield from reader.spaces()
        key, _ = yield from reader.collect(('="',), _LONGEST_KEY)
        closer = yield from parameters.value(key, ('", ', '")'), is_text=True)
    yield from parameters.end()
