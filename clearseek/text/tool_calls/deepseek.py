"""Calls of DeepSeek-V3, R1 and V3.1: tokens around a name and JSON.

V3 and R1 write `function<｜tool▁sep｜>NAME`, and the JSON in a fenced block; V3.1 writes `NAME<｜tool▁sep｜>` and JSON.
"""

from dataclasses import dataclass

from clearseek.text.tool_calls.calls import LONGEST_NAME, Calls, checked_name, stream_object
from clearseek.text.tool_calls.reader import NotACall, Steps

BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL_BEGIN, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"


@dataclass(frozen=True)
class DeepSeekCalls:
    """Both ways are read; `is_fenced` says which of them the template writes."""

    is_fenced: bool
    markers: tuple[str, ...] = (BEGIN,)
    tokens: tuple[str, ...] = (BEGIN, END, CALL_BEGIN, CALL_END, SEPARATOR)
    id_length: int = 0

    def read(self, calls: Calls, marker: str) -> Steps[None]:
        """All calls up to the last token."""
        reader = calls.reader
        while (yield from reader.spaces()):
            if (yield from reader.require(CALL_BEGIN, END)) == END:
                return
            yield from _one(calls)
            yield from reader.spaces()
            yield from reader.accept((CALL_END,))
            reader.keep()


def _one(calls: Calls) -> Steps[None]:
    reader = calls.reader
    said, _ = yield from reader.collect((SEPARATOR,), LONGEST_NAME)
    if (yield from reader.spaces()) != "{":  # then it was the kind of call, and the name comes now
        said, _ = yield from reader.collect(("\n", "```"), LONGEST_NAME)
        yield from reader.accept(("```json", "json"))
        if (yield from reader.spaces()) != "{":
            raise NotACall
    yield calls.start(checked_name(said))
    yield from stream_object(calls)
    yield from reader.spaces()
    yield from reader.accept(("```",))
