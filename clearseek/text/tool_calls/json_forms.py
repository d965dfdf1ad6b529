"""Calls as JSON between tags: Hermes, Qwen 2.5 to 3, QwQ, MiMo and ERNIE write an object, Hunyuan and Pangu a list."""

from dataclasses import dataclass, field

from clearseek.text.thoughts import Tags
from clearseek.text.tool_calls.calls import Calls, json_call
from clearseek.text.tool_calls.reader import Steps

TOOL_CALL = Tags("<tool_call>", "</tool_call>")


@dataclass(frozen=True)
class JsonCalls:
    """`{"name": …, "arguments": {…}}` between tags, one or (`is_list`) a list of them."""

    tags: Tags = field(default=TOOL_CALL)
    is_list: bool = False
    id_length: int = 0

    @property
    def markers(self) -> tuple[str, ...]:
        """The opening tag."""
        return (self.tags.start,)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Both tags."""
        return (self.tags.start, self.tags.end)

    def read(self, calls: Calls, marker: str) -> Steps[None]:
        """What is between the tags. A closing tag that is missing changes nothing: the JSON is over all the same."""
        yield from list_of_calls(calls) if self.is_list else json_call(calls)
        calls.reader.keep()
        if (yield from calls.reader.spaces()):
            yield from calls.reader.require(self.tags.end)


def list_of_calls(calls: Calls) -> Steps[None]:
    """A JSON list of calls."""
    yield from calls.reader.spaces()
    yield from calls.reader.require("[")
    while True:
        yield from json_call(calls)
        yield from calls.reader.spaces()
        if (yield from calls.reader.require(",", "]")) == "]":
            return
