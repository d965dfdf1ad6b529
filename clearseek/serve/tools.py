"""The tools of a chat request: what the template is told, what the parser reads, what the model is held to."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clearseek.engine.constraint import Constraint, lark
from clearseek.serve.errors import ApiError
from clearseek.serve.openai_chat_types import ChatRequest, NamedTool
from clearseek.serve.served_model import ServedModel
from clearseek.text.tool_calls.dsml import DsmlCalls
from clearseek.text.tool_calls.forced import forced_calls
from clearseek.text.tool_calls.free import free_calls
from clearseek.text.tool_calls.tagged import HunyuanTaggedCalls, QwenXmlCalls

_TAGGED = (DsmlCalls, HunyuanTaggedCalls, QwenXmlCalls)  # whose arguments can't be written without the schema


@dataclass(frozen=True)
class Tools:
    """`variables` are the template's; `schemas` the arguments' by name, None where nothing may be called."""

    variables: dict[str, Any] = field(default_factory=dict)
    schemas: dict[str, Mapping[str, Any]] | None = None
    constraint: Constraint | None = None
    most_calls: int | None = None

    @classmethod
    def of(cls, model: ServedModel, body: ChatRequest, answer: Constraint | None = None) -> "Tools":
        """What a request asks; `answer` is what its text has to look like.

        `ApiError` for what can't be meant, or not of this model.
        """
        choice = body.tool_choice or "auto"
        if not body.tools:
            if choice not in ("auto", "none"):
                raise ApiError(400, "tool_choice: there are no tools to choose from", param="tool_choice")
            return cls()
        if choice == "none":
            return cls()
        if "tools" not in model.tokenizer.chat.names_read or _form(model) is None:
            raise ApiError(400, f"tools: the chat template of {model.name} knows none", param="tools")
        if answer is not None and answer.kind not in ("json_schema", "json_object"):
            why = "beside tools it can be json alone; leave out tools, or set tool_choice to none"
            raise ApiError(400, f"structured_outputs: {why}", param="structured_outputs")
        described = [tool.model_dump(exclude_none=True) for tool in body.tools]
        schemas: dict[str, Mapping[str, Any]] = {
            tool.function.name: tool.function.parameters or {} for tool in body.tools
        }
        if isinstance(choice, NamedTool) and choice.function.name not in schemas:
            raise ApiError(
                400, f"tool_choice: there is no tool {choice.function.name!r}", param="tool_choice"
            )
        most_calls = 1 if body.parallel_tool_calls is False else None
        if choice == "auto":
            held = _held(model, body, schemas, answer, most_calls is None)
            return cls({"tools": described}, schemas, held, most_calls)
        named = choice.function.name if isinstance(choice, NamedTool) else None
        wanted = schemas if named is None else {named: schemas[named]}
        is_parallel = named is None and most_calls is None
        grammar = _as_fast(lark(forced_calls(model.reply_form, wanted, model.tokenizer, is_parallel)), answer)
        return cls({"tools": described}, schemas, grammar, most_calls)


def _held(
    model: ServedModel,
    body: ChatRequest,
    schemas: Mapping[str, Mapping[str, Any]],
    answer: Constraint | None,
    is_parallel: bool,
) -> Constraint | None:
    """What an answer that may call is held to: strict tools' schemas, and of the text what is asked of it."""
    tools = body.tools or ()
    strict = {tool.function.name for tool in tools if tool.function.strict}
    if not strict and answer is None:
        return None
    is_tagged = isinstance(model.reply_form.calls, _TAGGED)
    wanted = {name: schema if is_tagged or name in strict else {} for name, schema in schemas.items()}
    source = None if answer is None else answer.source
    return _as_fast(lark(free_calls(model.reply_form, wanted, model.tokenizer, is_parallel, source)), answer)


def _as_fast(held: Constraint, answer: Constraint | None) -> Constraint:
    """What stands in for an answer's own constraint, put there at once where that was to be."""
    return held if answer is None else replace(held, fast_forward=answer.fast_forward)


def _form(model: ServedModel) -> object:
    """How the model writes calls; None: not at all."""
    form = model.reply_form
    return form if form.is_harmony else form.calls
