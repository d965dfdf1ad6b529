"""Replies of every family as they stand in published templates, and pieces of them for texts that nobody wrote."""

# ruff: noqa: E501  (replies stand here as models write them)

import itertools
import json

from clearseek.text.thoughts import Tags
from clearseek.text.tool_calls.deepseek import DeepSeekCalls
from clearseek.text.tool_calls.dsml import DsmlCalls
from clearseek.text.tool_calls.events import CallArguments, Content, Gathered, Malformed, Thought
from clearseek.text.tool_calls.json_forms import JsonCalls
from clearseek.text.tool_calls.llama import LlamaCalls
from clearseek.text.tool_calls.mistral import MistralCalls
from clearseek.text.tool_calls.parser import ReplyParser
from clearseek.text.tool_calls.recognise import ReplyForm
from clearseek.text.tool_calls.tagged import HunyuanTaggedCalls, QwenXmlCalls

SCHEMAS = {
    "weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "unit": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "at": {"$ref": "#/$defs/place"},
        },
        "$defs": {"place": {"type": "object"}},
    },
    "now": {"type": "object", "properties": {}},
}

FORMS = {
    "hermes": ReplyForm(calls=JsonCalls()),
    "hunyuan": ReplyForm(calls=JsonCalls(Tags("<tool_calls>", "</tool_calls>"), is_list=True), answer=Tags("<answer>", "</answer>"), speaker="助手："),
    "ernie": ReplyForm(calls=JsonCalls(), answer=Tags("<response>", "</response>")),
    "pangu": ReplyForm(Tags("[unused16]", "[unused17]"), JsonCalls(Tags("[unused11]", "[unused12]"), is_list=True)),
    "r1": ReplyForm(calls=DeepSeekCalls(is_fenced=True)),
    "dsml_v4": ReplyForm(calls=DsmlCalls("tool_calls")),
    "mistral_list": ReplyForm(Tags("[THINK]", "[/THINK]"), MistralCalls(is_list=True)),
    "deepseek": ReplyForm(calls=DeepSeekCalls(is_fenced=False)),
    "dsml": ReplyForm(calls=DsmlCalls("function_calls")),
    "xml": ReplyForm(calls=QwenXmlCalls()),
    "hy3": ReplyForm(Tags("<think:o>", "</think:o>"), HunyuanTaggedCalls(":o")),
    "mistral": ReplyForm(Tags("[THINK]", "[/THINK]"), MistralCalls(is_list=False)),
    "llama": ReplyForm(calls=LlamaCalls()),
    "harmony": ReplyForm(is_harmony=True),
    "none": ReplyForm(),
}  # fmt: skip

CALL = '{"name": "weather", "arguments": {"city": "서울", "days": 2}}'
TEXTS = {
    "hermes": f't</think>\n\nok\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{{"name": "now"}}\n</tool_call>',
    "hunyuan": f'<think>\nt\n</think>\n<answer>\n助手：ok\n<tool_calls>[{CALL}, {{"name": "now", "arguments": {{}}}}]</tool_calls>\n</answer>',
    "deepseek": 't</think>ok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "서울", "days": 2}'
    "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "dsml": 't</think>ok\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="weather">\n<｜DSML｜parameter name="city" string="true">서울'
    '</｜DSML｜parameter>\n<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
    '<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
    "xml": "t</think>ok\n<tool_call>\n<function=weather>\n<parameter=city>\n서울\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
    "</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
    "hy3": "t</think:o>ok<tool_calls:o>\n<tool_call:o>weather<tool_sep:o>\n<arg_key:o>city</arg_key:o>\n<arg_value:o>서울"
    "</arg_value:o>\n<arg_key:o>days</arg_key:o>\n<arg_value:o>2</arg_value:o>\n</tool_call:o>\n<tool_call:o>now<tool_sep:o>\n"
    "</tool_call:o>\n</tool_calls:o>",
    "mistral": 't[/THINK]ok[TOOL_CALLS]weather[ARGS]{"city": "서울", "days": 2}[TOOL_CALLS]now[CALL_ID]a[ARGS]{}',
    "llama": 't</think>{"name": "weather", "parameters": {"city": "서울", "days": 2}}; {"name": "now", "parameters": {}}',
    "harmony": "<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>commentary<|message|>ok<|end|>"
    '<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "서울", "days": 2}<|call|>'
    "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}<|call|>",
    "none": "t</think>ok",
    "ernie": f't\n</think>\n\n<response>\nok\n</response>\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{{"name": "now"}}\n</tool_call>\n',
    "pangu": f't[unused17]ok[unused11][{CALL}, {{"name": "now", "arguments": {{}}}}][unused12]',
    "mistral_list": f't[/THINK]ok[TOOL_CALLS][{CALL}, {{"name": "now", "arguments": {{}}}}]',
}
TEXTS["dsml_v4"] = TEXTS["dsml"].replace("function_calls", "tool_calls")
TEXTS["r1"] = (
    "t</think>ok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"서울\", \"days\": 2}\n```"
    "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
)  # fmt: skip


def parse(form, chunks, inside=True, schemas=SCHEMAS):
    """All events of a reply, neighbours of one kind as one."""
    parser = ReplyParser(form, inside, schemas, lambda index: f"id{index}")
    events = [event for chunk in chunks for event in parser.feed(chunk)] + parser.finish()
    return joined(events)


def joined(events):
    """Neighbours of one kind as one."""
    together = []
    for event in events:
        before = together[-1] if together else None
        if isinstance(event, (Thought, Content, Malformed)) and type(before) is type(event):
            together[-1] = type(event)(before.text + event.text)
        elif (
            isinstance(event, CallArguments)
            and isinstance(before, CallArguments)
            and before.index == event.index
        ):
            together[-1] = CallArguments(event.index, before.text + event.text)
        else:
            together.append(event)
    return together


def gathered(form, text, inside=True, schemas=SCHEMAS):
    """A reply as a whole."""
    return Gathered().add(parse(form, [text], inside, schemas))


def cut(text, cuts):
    """A text in chunks."""
    bounds = [0, *sorted(place % (len(text) + 1) for place in cuts), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(bounds)]


def arguments(gathered):
    """Names and parsed arguments of the calls."""
    return [(call.name, json.loads(call.arguments), call.is_whole) for call in gathered.calls]
