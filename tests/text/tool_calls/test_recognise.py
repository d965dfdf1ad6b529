"""Families whose templates can't be fetched here: templates of ours with the signs that theirs have.

ERNIE 4.5's thinking models and Hunyuan-A13B as vLLM's parsers describe them (0.32: `ernie45`, `hunyuan_a13b`),
openPangu as its own examples show calls.
"""

# ruff: noqa: E501  (replies stand here as models write them)

import pytest

from clearseek.text.chat import ChatTemplate
from clearseek.text.thoughts import THINK_TAGS, Tags
from clearseek.text.tool_calls.history import fit_calls
from clearseek.text.tool_calls.json_forms import JsonCalls
from clearseek.text.tool_calls.recognise import ReplyForm
from tests.text.tool_calls.replies import SCHEMAS, arguments, gathered

WRITE = """\
{%- for message in messages -%}
  {%- if message.role == 'user' -%}{{ OPEN_USER + message.content + CLOSE }}
  {%- else -%}
    {{- OPEN + message.content + BEFORE -}}
    {%- for call in message.tool_calls -%}
      {{- EACH_BEFORE + '{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}' -}}
      {{- EACH_AFTER if not loop.last else LAST_AFTER -}}
    {%- endfor -%}
    {{- AFTER + CLOSE -}}
  {%- endif -%}
{%- endfor -%}
{%- if tools -%}{#- tools are told here -#}{%- endif -%}
{%- if add_generation_prompt -%}{{ OPEN }}{%- endif -%}
"""
ERNIE = {
    "OPEN_USER": "User: ", "OPEN": "Assistant: \\n<response>\\n", "CLOSE": "<|im_end|>\\n\\n",
    "BEFORE": "\\n</response>\\n", "EACH_BEFORE": "<tool_call>\\n", "EACH_AFTER": "\\n</tool_call>\\n",
    "LAST_AFTER": "\\n</tool_call>\\n", "AFTER": "",
}  # fmt: skip
HUNYUAN = {
    "OPEN_USER": "<|startoftext|>", "OPEN": "<|extra_0|>", "CLOSE": "<|eos|>", "BEFORE": "<tool_calls>[",
    "EACH_BEFORE": "", "EACH_AFTER": ", ", "LAST_AFTER": "", "AFTER": "]</tool_calls>",
}  # fmt: skip
PANGU = {
    "OPEN_USER": "[unused9]用户：", "OPEN": "[unused9]助手：", "CLOSE": "[unused10]", "BEFORE": "[unused11][",
    "EACH_BEFORE": "", "EACH_AFTER": ", ", "LAST_AFTER": "", "AFTER": "][unused12]",
}  # fmt: skip
FAMILIES = {
    "ernie": (ERNIE, ReplyForm(THINK_TAGS, JsonCalls(), Tags("<response>", "</response>"))),
    "hunyuan": (HUNYUAN, ReplyForm(THINK_TAGS, JsonCalls(Tags("<tool_calls>", "</tool_calls>"), True), Tags("<answer>", "</answer>"), speaker="助手：")),
    "pangu": (PANGU, ReplyForm(Tags("[unused16]", "[unused17]"), JsonCalls(Tags("[unused11]", "[unused12]"), True))),
}  # fmt: skip
REPLIES = {
    "ernie": "t\n</think>\n\n<response>\nok\n</response>\n",
    "hunyuan": "t\n</think>\n<answer>\nok\n</answer>",
    "pangu": "t[unused17]ok",
}


def template(name):
    """A family's signs, filled in."""
    source = WRITE
    for sign, text in sorted(FAMILIES[name][0].items(), key=lambda pair: -len(pair[0])):
        source = source.replace(sign, f"'{text}'")
    return ChatTemplate(source, None, "<eos>")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_signs_are_known(name):
    assert template(name).reply_form == FAMILIES[name][1]


@pytest.mark.parametrize("name", FAMILIES)
def test_its_thought_and_answer_are_parted(name):
    reply = gathered(template(name).reply_form, REPLIES[name])
    assert (reply.thought.strip(), reply.content.strip()) == ("t", "ok")


@pytest.mark.parametrize("name", FAMILIES)
def test_calls_that_it_writes_are_read_back(name):
    chat = template(name)
    given = {"city": '서울 {"x"}', "days": 2}
    calls = [
        {"type": "function", "function": {"name": "weather", "arguments": given}},
        {"type": "function", "function": {"name": "now", "arguments": {}}},
    ]
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "ok", "tool_calls": calls}]
    asked = chat.render(turns[:1])
    said = chat.render(fit_calls(turns, chat.source), add_generation_prompt=False).removeprefix(asked)
    reply = gathered(chat.reply_form, said, inside=False, schemas=SCHEMAS)
    assert arguments(reply) == [("weather", given, True), ("now", {}, True)]
