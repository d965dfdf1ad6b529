"""Chat templates: a conversation to the text a model reads, and a model's text to thought and answer.

Templates are Jinja sources as published models carry them, rendered in a sandbox the way transformers renders
them.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from clearseek.config.errors import InputError
from clearseek.text.thoughts import ThoughtParser

if TYPE_CHECKING:
    import jinja2

# DeepSeek-V3.1's format. System messages stand right after the beginning; thoughts of earlier turns are
# dropped.
DEEPSEEK_TEMPLATE = """\
{%- set state = namespace(system='', last_user=-1, answered=false) -%}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {%- set state.system = state.system + ('\\n\\n' if state.system else '') + message['content'] -%}
  {%- elif message['role'] == 'user' -%}
    {%- set state.last_user = loop.index0 -%}
  {%- elif message['role'] != 'assistant' -%}
    {{- raise_exception('role must be system, user or assistant, not ' + message['role']|tojson) -}}
  {%- endif -%}
{%- endfor -%}
{{- bos_token + state.system -}}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {%- set state.answered = false -%}
    {{- '<｜User｜>' + message['content'] -}}
  {%- elif message['role'] == 'assistant' -%}
    {%- set content = message['content'] -%}
    {%- set thought = message['reasoning_content'] if message['reasoning_content'] is string else '' -%}
    {%- if '</think>' in content -%}
      {%- set thought = content.split('</think>', 1)[0] -%}
      {%- set content = content.split('</think>', 1)[1] -%}
      {%- if thought.startswith('<think>') -%}
        {%- set thought = thought[7:] -%}
      {%- endif -%}
    {%- endif -%}
    {%- set state.answered = true -%}
    {{- '<｜Assistant｜>' -}}
    {%- if thought and loop.index0 > state.last_user -%}
      {{- '<think>' + thought -}}
    {%- endif -%}
    {{- '</think>' + content + eos_token -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and not state.answered -%}
  {{- '<｜Assistant｜>' + ('<think>' if thinking is not defined or thinking else '</think>') -}}
{%- endif -%}
"""

# For a base model without a template: R1-Zero's form (R1 v1, table 1), in plain text.
PLAIN_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message['role'] == 'assistant' -%}
    {{- 'Assistant: ' + message['content'] + eos_token + '\\n\\n' -}}
  {%- elif message['role'] == 'user' -%}
    {{- 'User: ' + message['content'] + '\\n\\n' -}}
  {%- else -%}
    {{- message['content'] + '\\n\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- 'Assistant: ' + ('<think>' if thinking is not defined or thinking else '') -}}
{%- endif -%}
"""


class ChatTemplate:
    """A Jinja chat template with the begin and end tokens it may name."""

    def __init__(self, source: str, bos_token: str, eos_token: str, place: str = "chat template") -> None:
        """`source` is compiled at first use; rendering then raises InputError, with `place`, where it is broken."""
        self.source = source
        self.place = place
        self.bos_token = bos_token
        self.eos_token = eos_token

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, thinking: bool = True
    ) -> str:
        """The conversation as text; `thinking`: the generation prompt opens a thought, else closes it."""
        import jinja2

        try:
            return self._compiled.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                thinking=thinking,
                enable_thinking=thinking,  # the name that Qwen's templates use
                bos_token=self.bos_token,
                eos_token=self.eos_token,
            )
        except jinja2.TemplateError as error:
            raise InputError(f"{self.place}: {error.message}") from error
        except (TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise InputError(f"{self.place}: it can't render these messages ({error})") from error

    def render_problem(self, prompt: str) -> str:
        """One user message and the opened answer, as text: what a problem looks like to the model."""
        return self.render([{"role": "user", "content": prompt}])

    @cached_property
    def opens_thought(self) -> bool:
        """Whether the generation prompt holds `<think>`, so that a completion begins inside the thought."""
        return self.render_problem("?").rstrip().endswith("<think>")

    def split_completion(self, text: str) -> tuple[str, str | None]:
        """A completion as (thought, answer): the answer stripped, None where the thought never closed."""
        parser = ThoughtParser(inside_thought=self.opens_thought)
        events = parser.feed(text.removesuffix(self.eos_token)) + parser.close()
        thought = "".join(part for kind, part in events if kind == "thought")
        if parser.inside_thought:
            return thought, None
        return thought, "".join(part for kind, part in events if kind == "answer").strip()

    @cached_property
    def _compiled(self) -> "jinja2.Template":
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        extensions: list[str | type[Extension]] = [loopcontrols]
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=extensions
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        return environment.from_string(self.source)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own tojson escapes HTML; a prompt must not."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
