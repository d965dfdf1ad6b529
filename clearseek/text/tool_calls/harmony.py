"""gpt-oss's replies (the harmony format): messages in channels, which are thought, answer or calls.

https://cookbook.openai.com/articles/openai-harmony
"""

import re
from collections.abc import Sequence

from clearseek.text.tool_calls.calls import Calls, checked_name, stream_object
from clearseek.text.tool_calls.events import Content, Thought
from clearseek.text.tool_calls.reader import NotACall, Steps

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
END, CALL, RETURN, CONSTRAIN = "<|end|>", "<|call|>", "<|return|>", "<|constrain|>"
TOKENS = (START, CHANNEL, MESSAGE, END, CALL, RETURN, CONSTRAIN)
_LONGEST_HEADER = 1000
_THOUGHT, _ANSWER = f"{CHANNEL}analysis{MESSAGE}", f"{CHANNEL}final{MESSAGE}"
_CHANNEL = re.compile(re.escape(CHANNEL) + r"\s*(\w+)")
_RECIPIENT = re.compile(r"\bto=functions\.(\S+?)(?=\s|<\||$)")


def read_harmony(calls: Calls, may_call: bool) -> Steps[None]:
    """A whole reply, after the prompt's `<|start|>assistant`. A message without a channel is an answer."""
    reader = calls.reader
    while (yield from reader.peek()):
        try:
            header, _ = yield from reader.collect((MESSAGE,), _LONGEST_HEADER)
        except NotACall:
            yield from reader.until((END, CALL, RETURN, START), Content)
        else:
            reader.keep(len(header) + len(MESSAGE))
            yield from calls.attempt(_message(calls, header, may_call))


def begun(thought: str, answer: str, answers_now: bool = False) -> list[tuple[str, bool]]:
    """A reply that is to go on, after the prompt's `<|start|>assistant`: texts, and whether each is the model's own.

    What goes on is the thought, or the answer where one is begun or `answers_now`.
    """
    parts = [(_THOUGHT, False), (thought, True)] if thought else []
    if answer.strip() or answers_now:
        turn = f"{END}{START}assistant" if thought else ""
        parts += [(turn + _ANSWER, False), (answer, True)]
    return parts


def opening_of(tokens: Sequence[str]) -> str:
    """The header of the message that a prompt leaves open, for a reply's reader to begin with; "" where it leaves none.

    `tokens` are the prompt's last ones by their exact strings, from its last `<|start|>` on.
    """
    if MESSAGE not in tokens or END in tokens:
        return ""
    header = tokens[1 : tokens.index(MESSAGE)]
    return "".join(header).removeprefix("assistant") + MESSAGE


def _message(calls: Calls, header: str, may_call: bool) -> Steps[None]:
    reader = calls.reader
    channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
    if recipient and may_call:
        name = checked_name(recipient.group(1))
        if (yield from reader.spaces()) == "{":
            yield calls.start(name)
            yield from stream_object(calls)
        elif (yield from reader.require(CALL, END)):
            yield calls.start(name)
            yield calls.arguments("{}")
            yield calls.end()
            return
        yield from reader.spaces()
        yield from reader.accept((CALL, END, RETURN))
        return
    reader.kept = None
    is_thought = channel is not None and channel.group(1) == "analysis"
    ended = yield from reader.until((END, CALL, RETURN, START, CHANNEL), Thought if is_thought else Content)
    if ended == CHANNEL:  # the end was left out
        reader.place -= len(ended)
