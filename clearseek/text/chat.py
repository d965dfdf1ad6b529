"""Chat templates: a conversation to the text a model reads, and a model's text to thought and answer.

Templates are Jinja sources as published models carry them, rendered in a sandbox the way transformers renders
them.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clearseek.config.errors import InputError
from clearseek.config.load import nearest
from clearseek.text.meter import CURRENT_METER, Meter, TemplateLimit
from clearseek.text.template_data import cut_continued, mark_continued, plain_messages, plain_value
from clearseek.text.thoughts import ThoughtParser
from clearseek.text.tool_calls.history import calls_without_content
from clearseek.text.tool_calls.recognise import ReplyForm, reply_form

if TYPE_CHECKING:
    import jinja2

_LONGEST_TEMPLATE = 500_000  # characters; the longest published one has 17 thousand

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
    """A Jinja chat template, others that the model has besides it, and the special tokens they may name."""

    def __init__(
        self,
        source: str,
        bos_token: str | None,
        eos_token: str,
        place: str = "chat template",
        special_tokens: Mapping[str, str] = MappingProxyType({}),
        named: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`source` is compiled at first use; rendering then raises InputError, with `place`, where it is broken.

        `special_tokens` are further ones by the names that templates use, such as `pad_token`; `named` are
        further templates, of which `tool_use` is taken where tools are given.
        """
        self.source = source
        self.place = place
        self.bos_token = bos_token
        self.eos_token = eos_token
        named_here = {"eos_token": eos_token} | ({} if bos_token is None else {"bos_token": bos_token})
        self.special_tokens = {**special_tokens, **named_here}
        self.named = dict(named)
        self._compiled: dict[str, jinja2.Template] = {}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        thinking: bool | None = True,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> str:
        """The conversation as text, as transformers' `apply_chat_template` renders it.

        `thinking` is passed as `thinking` and `enable_thinking`, the names that templates ask for (in ours:
        the generation prompt opens a thought, else closes it); None leaves it to the template. `tools` are
        JSON schemas, `variables` what else the template knows, such as `reasoning_effort`.
        `continue_final_message` leaves the last message open. Raises InputError for what no template reads
        (`names_read`), and where this one does not take these messages, or takes more time or memory than it may.
        """
        if continue_final_message and add_generation_prompt:
            raise InputError("continue_final_message takes add_generation_prompt=False: one or the other")
        self._require_read([*variables, *["tools"] * bool(tools), *["documents"] * bool(documents)])
        switches = {} if thinking is None else {"thinking": thinking, "enable_thinking": thinking}
        given = {"tools": tools, "documents": documents, **switches, **variables}
        source = self.named.get("tool_use", self.source) if tools is not None else self.source
        try:
            seen = plain_messages(messages, has_nulls=calls_without_content(source))
            context = {name: plain_value(value, name) for name, value in given.items()}
        except RecursionError:
            raise InputError("the conversation nests values too deep for a chat template") from None
        continued = mark_continued(seen) if continue_final_message else ""
        context |= {"messages": seen, "add_generation_prompt": add_generation_prompt}
        rendered = self._render(source, context)
        return cut_continued(rendered, continued) if continue_final_message else rendered

    @cached_property
    def names_read(self) -> frozenset[str]:
        """Names that the templates read and don't set themselves: what may be given to `render`, and globals.

        Raises InputError where a template is broken.
        """
        from jinja2 import TemplateError, meta

        from clearseek.text.sandbox import chat_environment

        environment = chat_environment()
        try:
            parsed = [environment.parse(source) for source in (self.source, *self.named.values())]
        except (TemplateError, RecursionError, ValueError) as error:
            raise InputError(f"{self.place}: {error}") from error
        return frozenset(name for tree in parsed for name in meta.find_undeclared_variables(tree))

    def _require_read(self, names: Sequence[str]) -> None:
        """InputError for the first that the templates would not notice."""
        for name in names:
            if name not in self.names_read:
                given_already = {"messages", "add_generation_prompt", *self.special_tokens}
                known = sorted(self.names_read - given_already)
                raise InputError(f"{self.place}: it does not read {name!r}{nearest(name, known)}")

    def render_problem(self, prompt: str) -> str:
        """One user message and the opened answer, as text: what a problem looks like to the model."""
        return self.render([{"role": "user", "content": prompt}])

    @cached_property
    def reply_form(self) -> ReplyForm:
        """How the model writes its thoughts and calls, as its template shows it."""
        return reply_form(self.named.get("tool_use", self.source))

    @cached_property
    def opens_thought(self) -> bool:
        """Whether the generation prompt holds an opening tag, so that a completion begins inside the thought."""
        return self.render_problem("?").rstrip().endswith(self.reply_form.thought.start)

    def split_completion(self, text: str) -> tuple[str, str | None]:
        """A completion as (thought, answer): the answer stripped, None where the thought never closed."""
        parser = ThoughtParser(self.opens_thought, self.reply_form.thought)
        events = parser.feed(text.removesuffix(self.eos_token)) + parser.close()
        thought = "".join(part for kind, part in events if kind == "thought")
        if parser.inside_thought:
            return thought, None
        return thought, "".join(part for kind, part in events if kind == "answer").strip()

    def _render(self, source: str, context: Mapping[str, Any]) -> str:
        """`source` with these variables, on a meter; whatever goes wrong in it becomes an InputError."""
        import jinja2

        meter = Meter()
        meter.allow_for(context)
        token = CURRENT_METER.set(meter)
        try:
            return self._compile(source).render({**self.special_tokens, **context})
        except (jinja2.TemplateError, TemplateLimit) as error:
            raise InputError(f"{self.place}: {error}") from error
        except (RecursionError, MemoryError) as error:
            raise InputError(f"{self.place}: it nests or recurses too deep to be rendered") from error
        except Exception as error:
            raise InputError(f"{self.place}: it can't render these messages ({error})") from error
        finally:
            CURRENT_METER.reset(token)

    def _compile(self, source: str) -> "jinja2.Template":
        if source not in self._compiled:
            from clearseek.text.sandbox import chat_environment

            if len(source) > _LONGEST_TEMPLATE:
                raise TemplateLimit(f"it is longer than {_LONGEST_TEMPLATE} characters")
            self._compiled[source] = chat_environment().from_string(source)
        return self._compiled[source]
