"""Calls with a tag for each argument: Qwen3-Coder, Qwen3.5 and MiMo-V2 in one way, Hunyuan's Hy3 in another."""

from dataclasses import dataclass

from clearseek.text.tool_calls.calls import LONGEST_NAME, Calls, checked_name
from clearseek.text.tool_calls.parameters import Parameters
from clearseek.text.tool_calls.reader import Steps

_LONGEST_KEY = 1000


@dataclass(frozen=True)
class QwenXmlCalls:
    """`<tool_call>`, `<function=NAME>`, `<parameter=KEY>`, each value on lines of its own."""

    markers: tuple[str, ...] = ("<tool_call>",)
    tokens: tuple[str, ...] = ("<tool_call>", "</tool_call>")
    id_length: int = 0

    def read(self, calls: Calls, marker: str) -> Steps[None]:
        """One call."""
        reader = calls.reader
        yield from reader.spaces()
        yield from reader.require("<function=")
        said, _ = yield from reader.collect((">",), LONGEST_NAME)
        name = checked_name(said)
        yield calls.start(name)
        parameters = Parameters(calls, name)
        while True:
            yield from reader.spaces()
            if (yield from reader.require("<parameter=", "</function>")) == "</function>":
                break
            key, _ = yield from reader.collect((">",), _LONGEST_KEY)
            yield from reader.accept(("\n",))
            yield from parameters.value(key, ("\n</parameter>", "</parameter>"))
        yield from parameters.end()
        if (yield from reader.spaces()):
            yield from reader.require("</tool_call>")


@dataclass(frozen=True)
class HunyuanTaggedCalls:
    """`<tool_calls>`, `<tool_call>NAME<tool_sep>`, `<arg_key>`, `<arg_value>`; `suffix` stands in every tag."""

    suffix: str = ""
    id_length: int = 0

    @property
    def markers(self) -> tuple[str, ...]:
        """The opening tag of all."""
        return (self._tag("tool_calls"),)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Every tag."""
        names = ("tool_calls", "tool_call", "arg_key", "arg_value")
        return (self._tag("tool_sep"), *(self._tag(end + name) for name in names for end in ("", "/")))

    def read(self, calls: Calls, marker: str) -> Steps[None]:
        """All calls."""
        reader, end = calls.reader, self._tag("/tool_calls")
        while (yield from reader.spaces()):
            if (yield from reader.require(self._tag("tool_call"), end)) == end:
                return
            yield from self._one(calls)
            reader.keep()

    def _one(self, calls: Calls) -> Steps[None]:
        reader, end = calls.reader, self._tag("/tool_call")
        said, _ = yield from reader.collect((self._tag("tool_sep"),), LONGEST_NAME)
        name = checked_name(said)
        yield calls.start(name)
        parameters = Parameters(calls, name)
        while True:
            yield from reader.spaces()
            if (yield from reader.require(self._tag("arg_key"), end)) == end:
                break
            key, _ = yield from reader.collect((self._tag("/arg_key"),), _LONGEST_KEY)
            yield from reader.spaces()
            yield from reader.require(self._tag("arg_value"))
            yield from parameters.value(key, (self._tag("/arg_value"),))
        yield from parameters.end()

    def _tag(self, name: str) -> str:
        return f"<{name}{self.suffix}>"
