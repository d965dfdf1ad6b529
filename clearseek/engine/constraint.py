"""What a completion has to look like: a JSON schema, a regular expression, a grammar, one of some texts.

Only the description; `grammar` obeys it, with a library that is loaded where a request has one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from clearseek.config.errors import InputError

ConstraintKind = Literal["json_schema", "json_object", "regex", "lark", "choice"]
LONGEST_CONSTRAINT = 65_536  # characters; compiling takes time that grows faster than the text


@dataclass(frozen=True)
class Constraint:
    """One constraint, as text: `kind` says how to read `source`. Made by the functions of this file.

    `thinks_first`: a thought comes first, as free as without a constraint, and what follows `</think>` obeys.
    `fast_forward`: where only one text can come next, its tokens are put there without being drawn, and read in one
    step, so that they come sooner.
    """

    kind: ConstraintKind
    source: str
    thinks_first: bool = True
    fast_forward: bool = False


def json_schema(
    schema: Mapping[str, Any] | str, thinks_first: bool = True, fast_forward: bool = False
) -> Constraint:
    """A JSON document that a schema describes; the schema as a mapping or as JSON text."""
    try:
        source = (
            schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False, allow_nan=False)
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"constraint: the JSON schema can't be written as JSON ({error})") from None
    return _bounded("json_schema", source, thinks_first, fast_forward)


def json_object(thinks_first: bool = True) -> Constraint:
    """Any JSON object."""
    return Constraint("json_object", '{"type": "object"}', thinks_first)


def regex(pattern: str, thinks_first: bool = True, fast_forward: bool = False) -> Constraint:
    """Text that a regular expression matches from its beginning to its end; without look-around."""
    return _bounded("regex", pattern, thinks_first, fast_forward)


def lark(grammar: str, thinks_first: bool = True, fast_forward: bool = False) -> Constraint:
    """Text of a context-free grammar in Lark's syntax, whose first rule is called `start`."""
    return _bounded("lark", grammar, thinks_first, fast_forward)


def choice(
    texts: list[str] | tuple[str, ...], thinks_first: bool = True, fast_forward: bool = False
) -> Constraint:
    """Exactly one of these texts."""
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise InputError("constraint: a choice needs a list of texts, none of them empty")
    # a terminal (its name is in capitals), so that many texts are one automaton
    listed = " | ".join(json.dumps(text, ensure_ascii=False) for text in dict.fromkeys(texts))
    return _bounded("choice", f"start: CHOICE\nCHOICE: {listed}", thinks_first, fast_forward)


def _bounded(kind: ConstraintKind, source: str, thinks_first: bool, fast_forward: bool) -> Constraint:
    if not isinstance(source, str) or not source.strip():
        raise InputError(f"constraint: a {kind} must be a text that isn't empty")
    if len(source) > LONGEST_CONSTRAINT:
        raise InputError(
            f"constraint: the {kind} has {len(source)} characters; it may have at most {LONGEST_CONSTRAINT}"
        )
    return Constraint(kind, source, thinks_first, fast_forward)
