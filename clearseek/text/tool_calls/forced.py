"""A grammar that leaves a model nothing but calls of tools, in the way that it writes them (llguidance's Lark)."""

import json
import re
from collections.abc import Mapping
from typing import Any

from clearseek.config.errors import InputError
from clearseek.text.thoughts import Tags
from clearseek.text.tokenizer import Tokenizer
from clearseek.text.tool_calls import deepseek, dsml, harmony, mistral
from clearseek.text.tool_calls.calls import Schemas
from clearseek.text.tool_calls.deepseek import DeepSeekCalls
from clearseek.text.tool_calls.dsml import DsmlCalls
from clearseek.text.tool_calls.json_forms import JsonCalls
from clearseek.text.tool_calls.llama import LlamaCalls
from clearseek.text.tool_calls.mistral import MistralCalls
from clearseek.text.tool_calls.parameters import kinds_of
from clearseek.text.tool_calls.recognise import ReplyForm
from clearseek.text.tool_calls.tagged import HunyuanTaggedCalls, QwenXmlCalls

_SPACE = "SPACE: /[ \\n]{1,4}/"
WHITESPACE = {
    "x-guidance": {"whitespace_pattern": "[ \\n]{0,8}"}
}  # without a bound a weak model writes nothing else


def forced_calls(form: ReplyForm, schemas: Schemas, tokenizer: Tokenizer, is_parallel: bool = True) -> str:
    """Lark for at least one call of one of the tools in `schemas`; without `is_parallel` for exactly one.

    It holds after the thought. InputError where the model's way of writing calls is not known.
    """
    return Grammar(form, tokenizer).of(schemas, is_parallel)


class Grammar:
    """The rules of one grammar: calls, of one form, of some tools."""

    def __init__(self, form: ReplyForm, tokenizer: Tokenizer) -> None:
        if form.calls is None and not form.is_harmony:
            raise InputError("this model's chat template shows no way of writing calls that is known here")
        self._form, self._rules = form, [_SPACE]
        ids = {text: tokenizer.token_id(text) for text in form.tokens}
        self._ids = {text: token for text, token in ids.items() if token in tokenizer.control_ids}
        parts = "|".join(map(re.escape, sorted(self._ids, key=len, reverse=True)))
        self._split = re.compile(f"({parts})") if parts else None

    def of(self, schemas: Schemas, is_parallel: bool) -> str:
        """Calls and nothing else."""
        return self._whole(f"SPACE? {self._calls(schemas, is_parallel)}")

    def _whole(self, start: str) -> str:
        return "\n".join((f"start: {start}", *self._rules)) + "\n"

    def _calls(self, schemas: Schemas, is_parallel: bool) -> str:
        if not schemas:
            raise InputError("there are no tools that could be called")
        calls = [self._call(number, name, schema) for number, (name, schema) in enumerate(schemas.items())]
        self._rule("call", " | ".join(calls))
        start, between, end, most_one = self._frame()
        more = "" if most_one or not is_parallel else f" ({between} call)*"
        return f"{start} call{more} {end}"

    def _frame(self) -> tuple[str, str, str, bool]:
        """What stands before, between and after calls, and whether there is but one."""
        text = self._text
        match self._form.calls:
            case JsonCalls(tags, is_list=True):
                return self._head(tags.start + "["), text(", "), text("]" + tags.end), False
            case DeepSeekCalls(is_fenced):
                between = text("\n") if is_fenced else ""
                return self._head(deepseek.BEGIN), between, text(deepseek.END), False
            case DsmlCalls(block):
                end = text(f"\n</{dsml.TOKEN}{block}>")
                return self._head(f"<{dsml.TOKEN}{block}>\n"), text("\n"), end, False
            case HunyuanTaggedCalls(suffix):
                tags = Tags(f"<tool_calls{suffix}>\n", f"\n</tool_calls{suffix}>")
                return self._head(tags.start), text("\n"), text(tags.end), False
            case MistralCalls(is_list=True):
                return self._head(mistral.MARKER + "["), text(", "), text("]"), False
            case MistralCalls():
                return "", "", "", False
            case None:
                return self._analysis(), "", "", True
            case LlamaCalls():
                return "", "", "", True
        return "", text("\n"), "", False

    def _call(self, number: int, name: str, schema: Mapping[str, Any]) -> str:
        """The name of the rule that is a call of one tool."""
        text = self._text
        match self._form.calls:
            case DsmlCalls() | QwenXmlCalls() | HunyuanTaggedCalls():
                body = self._tagged_call(number, name, schema)
            case JsonCalls(tags, is_list):
                own = Tags("", "") if is_list else Tags(tags.start + "\n", "\n" + tags.end)
                body = f"{self._head(own.start)} {self._object(number, name, schema)} {text(own.end)}"
            case MistralCalls(is_list=True):
                body = self._object(number, name, schema)
            case MistralCalls():
                head = self._head(mistral.MARKER + name + mistral.ARGUMENTS)
                body = f"{head} {self._json(number, schema)}"
            case DeepSeekCalls(is_fenced=True):
                fence = "\n```"
                head = f"{deepseek.CALL_BEGIN}function{deepseek.SEPARATOR}{name}\n```json\n"
                body = f"{text(head)} {self._json(number, schema)} {text(fence + deepseek.CALL_END)}"
            case DeepSeekCalls():
                head = deepseek.CALL_BEGIN + name + deepseek.SEPARATOR
                body = f"{text(head)} {self._json(number, schema)} {text(deepseek.CALL_END)}"
            case LlamaCalls():
                body = self._object(number, name, schema, "parameters")
            case _:
                head = f"{harmony.CHANNEL}commentary to=functions.{name} {harmony.CONSTRAIN}json{harmony.MESSAGE}"
                body = f"{text(head)} {self._json(number, schema)}"
        return self._rule(f"call_{number}", body)

    def _object(self, number: int, name: str, schema: Mapping[str, Any], key: str = "arguments") -> str:
        head = f'{{"name": {json.dumps(name)}, "{key}": '
        return f"{self._text(head)} {self._json(number, schema)} {self._text('}')}"

    def _json(self, number: int, schema: Mapping[str, Any]) -> str:
        return self._schema(f"arguments_{number}", {"type": "object", **schema})

    def _schema(self, rule: str, schema: Mapping[str, Any]) -> str:
        return self._rule(rule, "%json " + json.dumps({**WHITESPACE, **schema}, ensure_ascii=False))

    def _tagged_call(self, number: int, name: str, schema: Mapping[str, Any]) -> str:
        match self._form.calls:
            case DsmlCalls():
                head, end = f'<{dsml.TOKEN}invoke name="{name}">\n', f"</{dsml.TOKEN}invoke>"
            case HunyuanTaggedCalls(suffix):
                head, end = f"<tool_call{suffix}>{name}<tool_sep{suffix}>\n", f"</tool_call{suffix}>"
            case _:
                head, end = f"<tool_call>\n<function={name}>\n", "</function>\n</tool_call>"
        properties, required = schema.get("properties") or {}, schema.get("required") or ()
        values = [
            self._parameter(f"value_{number}_{place}", key, value, schema) + ("" if key in required else "?")
            for place, (key, value) in enumerate(properties.items())
        ]
        return " ".join((self._head(head), *values, self._text(end)))

    def _parameter(self, rule: str, key: str, schema: Any, root: Mapping[str, Any]) -> str:
        is_text = kinds_of(schema, root) == {"string"}
        match self._form.calls:
            case DsmlCalls():
                said = "true" if is_text else "false"
                tags = Tags(
                    f'<{dsml.TOKEN}parameter name="{key}" string="{said}">', f"</{dsml.TOKEN}parameter>"
                )
            case HunyuanTaggedCalls(suffix):
                head = f"<arg_key{suffix}>{key}</arg_key{suffix}>\n<arg_value{suffix}>"
                tags = Tags(head, f"</arg_value{suffix}>")
            case _:
                tags = Tags(f"<parameter={key}>\n", "\n</parameter>")
        if is_text:
            value = self._free_text(rule, schema, tags.end)
        else:
            shared = {name: root[name] for name in ("$defs", "definitions") if name in root}
            whole = {**shared, **schema} if isinstance(schema, dict) else shared
            value = f"{self._schema(rule + '_json', whole)} {self._text(tags.end)}"
        text = f"{self._text(tags.start)} {value} {self._text(chr(10))}"
        return self._rule(rule, text)

    def _free_text(self, rule: str, schema: Any, end: str) -> str:
        """A text up to its closing tag, that tag with it."""
        choices = (
            schema.get("enum", [schema["const"]] if "const" in schema else [])
            if isinstance(schema, dict)
            else []
        )
        if choices:
            return f"({' | '.join(self._text(str(choice)) for choice in choices)}) {self._text(end)}"
        first = next((i for text in self._ids if (i := end.find(text)) >= 0), None)
        if first is None:
            name = f"{rule}_text"
            self._rules.append(f"{name}[suffix={json.dumps(end)}]: /(.|\\n)*/")
            return name
        # a special token ends the text, which may have to end with the part of the tag before
        name = rule.upper() + "_TEXT"
        self._rules.append(f"{name}: /(.|\\n)*{re.escape(end[:first]).replace('/', chr(92) + '/')}/")
        return f"{name}? {self._text(end[first:])}" if not first else f"{name} {self._text(end[first:])}"

    def _analysis(self) -> str:
        """gpt-oss's thought, which comes first or not at all."""
        head, end = harmony.CHANNEL + "analysis" + harmony.MESSAGE, harmony.END
        tail = self._text(harmony.START + "assistant")
        return f"({self._text(head)} {self._free_text('analysis', {}, end)} {tail})?"

    def _head(self, text: str) -> str:
        """Text that begins a call, or all of them."""
        return self._text(text)

    def _text(self, text: str) -> str:
        """Some text, in which special tokens are tokens."""
        parts = self._split.split(text) if self._split else [text]
        return " ".join(
            f"<[{self._ids[part]}]>" if part in self._ids else json.dumps(part, ensure_ascii=False)
            for part in parts
            if part
        )

    def _rule(self, name: str, body: str) -> str:
        self._rules.append(f"{name}: {body}")
        return name
