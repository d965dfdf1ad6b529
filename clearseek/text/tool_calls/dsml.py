"""Calls of DeepSeek-V3.2 and V4: invocations with parameters in DeepSeek's markup language (DSML)."""

from dataclasses import dataclass

from clearseek.text.tool_calls.calls import LONGEST_NAME, Calls, checked_name
from clearseek.text.tool_calls.parameters import Parameters
from clearseek.text.tool_calls.reader import Steps

TOKEN = "｜DSML｜"
_LONGEST_KEY = 1000


@dataclass(frozen=True)
class DsmlCalls:
    """`block` is "function_calls" in V3.2, "tool_calls" in V4."""

    block: str
    tokens: tuple[str, ...] = (TOKEN,)
    id_length: int = 0

    @property
    def markers(self) -> tuple[str, ...]:
        """The block's opening tag."""
        return (f"<{TOKEN}{self.block}>",)

    def read(self, calls: Calls, marker: str) -> Steps[None]:
        """All invocations up to the block's end."""
        reader, end = calls.reader, f"</{TOKEN}{self.block}>"
        while (yield from reader.spaces()):
            if (yield from reader.require(f'<{TOKEN}invoke name="', end)) == end:
                return
            yield from _one(calls)
            reader.keep()


def _one(calls: Calls) -> Steps[None]:
    reader = calls.reader
    said, _ = yield from reader.collect(('">',), LONGEST_NAME)
    name = checked_name(said)
    yield calls.start(name)
    parameters = Parameters(calls, name)
    while True:
        yield from reader.spaces()
        if (yield from reader.require(f'<{TOKEN}parameter name="', f"</{TOKEN}invoke>")).startswith("</"):
            break
        key, _ = yield from reader.collect(('" string="',), _LONGEST_KEY)
        is_text = (yield from reader.require('true">', 'false">')) == 'true">'
        yield from parameters.value(key, (f"</{TOKEN}parameter>",), is_text)
    yield from parameters.end()
