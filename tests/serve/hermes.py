"""A tokenizer whose chats are Hermes', and two calls as its models write them."""

import copy

from clearseek.text.chat import ChatTemplate

# Hermes' way of writing, as Qwen's templates show it
TEMPLATE = """\
{%- if tools %}{{- '<tools>' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ '</tools>
For each call write <tool_call>
{"name": <name>, "arguments": <object>}
</tool_call>' }}{% endif -%}
{%- for message in messages -%}
[{{ message.role }}]{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor -%}
{%- endfor -%}
[assistant]{% if thinking %}<think>{% endif %}"""
CALLS = """I add.</think>Let me see.
<tool_call>
{"name": "add", "arguments": {"a": 12, "b": 5}}
</tool_call>
<tool_call>
{"name": "add", "arguments": {"a": 1, "b": 2}}
</tool_call>"""


def hermes_of(tokenizer):
    """The same vocabulary with that template."""
    changed = copy.copy(tokenizer)
    changed.chat = ChatTemplate(TEMPLATE, tokenizer.chat.bos_token, tokenizer.chat.eos_token)
    return changed
