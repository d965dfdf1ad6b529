"""vLLM's `structured_outputs` as the engine's constraint."""

from dataclasses import replace

from clearseek.engine.constraint import Constraint, choice, json_object, json_schema, lark, regex
from clearseek.serve.errors import ApiError
from clearseek.serve.openai_chat_types import StructuredOutputs


def constraint_of(wanted: StructuredOutputs, thinks_first: bool = True) -> Constraint:
    """What an answer, or what follows its thought, has to look like.

    `ApiError` unless exactly one form is asked for, InputError for one that can't be read.
    """
    forms = ("json", "json_object", "regex", "choice", "grammar")
    asked = [name for name, value in zip(forms, wanted.forms, strict=True) if value not in (None, False)]
    if len(asked) != 1:
        said = " and ".join(asked) if asked else "nothing"
        why = f"it asks for {said}; give one of {', '.join(forms)}"
        raise ApiError(400, f"structured_outputs: {why}", param="structured_outputs")
    return replace(_form(wanted), thinks_first=thinks_first, fast_forward=bool(wanted.fast_forward))


def _form(wanted: StructuredOutputs) -> Constraint:
    if wanted.json_ is not None:
        return json_schema(wanted.json_)
    if wanted.regex is not None:
        return regex(wanted.regex)
    if wanted.choice is not None:
        return choice(wanted.choice)
    if wanted.grammar is not None:
        return lark(wanted.grammar)
    return json_object()
