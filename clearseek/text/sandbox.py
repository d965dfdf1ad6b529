"""The sandbox that chat templates run in: what transformers offers them, every operation on a meter.

Jinja's sandbox keeps a template from the interpreter, not from its time and memory. Loop rounds, calls,
filters, operators and whatever makes a container therefore pass by the `Meter` of the rendering.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

from clearseek.text.meter import TemplateLimit, current_meter
from clearseek.text.metered_filters import ADMIT, READ, TICK, finalize, meter_operations

_LONGEST_DATE_FORMAT = 1000
_CALL = 128  # units of a call besides its tick


def chat_environment() -> jinja2.Environment:
    """The environment of a chat template: transformers' (`utils/chat_template_utils.py`, 5.23), metered.

    Render inside a context where CURRENT_METER is set; TemplateLimit is raised where it runs out.
    """
    environment = _MeteredEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationTag, loopcontrols],
        finalize=finalize,
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _TemplateDict(),
        "namespace": _TemplateNamespace,
        "lipsum": _lipsum,
    }
    meter_operations(environment.filters, environment.tests)
    return environment


class _MeteredEnvironment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        metered = _MeterInserter().visit(template)
        metered.set_environment(self)
        return metered

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        meter = current_meter()
        if operator == "*":
            meter.foresee_product(left, right)
        elif operator == "**":
            meter.foresee_power(left, right)
        elif operator == "%":
            meter.foresee_percent(left, right)
        return meter.admit(self.binop_table[operator](left, right))

    def call(__self, __context: Any, __called: Any, *args: Any, **kwargs: Any) -> Any:
        meter = current_meter()
        meter.tick(_CALL)
        owner = getattr(__called, "__self__", None)
        if isinstance(owner, str | bytes | int | list | tuple | dict):
            name = __called.__name__
            if name == "join" and args:
                args = (meter.listed(args[0]), *args[1:])
                meter.foresee_join(owner, args[0])
            else:
                meter.foresee_method(owner, name, args, kwargs)
        return meter.admit(super().call(__context, __called, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        text, of_mapping = value.__self__, value.__name__ == "format_map"
        formatter = (
            _MeteredEscapeFormatter(self, escape=text.escape)
            if isinstance(text, Markup)
            else _MeteredFormatter(self)
        )

        def format_text(*args: Any, **kwargs: Any) -> str:
            if of_mapping:
                args, kwargs = (), dict(*args, **kwargs)
            return type(text)(formatter.vformat(text, args, kwargs))

        return format_text


class _MeteredFormatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        meter = current_meter()
        meter.foresee_spec(format_spec)
        meter.spend(meter.size(value))
        return super().format_field(value, format_spec)


class _MeteredEscapeFormatter(_MeteredFormatter, SandboxedEscapeFormatter):
    pass


class _MeterInserter(NodeTransformer):
    """Lets what a template computes pass by the meter, so that no piece of it is free."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.test is not None:  # it is asked of every element before the body sees one
            node.iter = _passed(READ, node.iter)
        return self._with_tick(node)

    def _with_tick(self, node: Any) -> nodes.Node:
        static = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        tick = _passed(TICK, nodes.Const(static, lineno=node.lineno))
        node.body.insert(0, nodes.ExprStmt(tick, lineno=node.lineno))
        return node

    visit_Macro = visit_CallBlock = visit_FilterBlock = visit_AssignBlock = visit_Block = _with_tick

    def _admitted(self, node: Any) -> nodes.Node:
        return _passed(ADMIT, self.generic_visit(node))

    visit_Concat = _admitted

    def _literal(self, node: Any) -> nodes.Node:
        assigned = getattr(node, "ctx", "load") == "store"
        return self.generic_visit(node) if assigned or _is_constant(node) else self._admitted(node)

    visit_List = visit_Tuple = visit_Dict = _literal

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        return self._admitted(node) if isinstance(node.arg, nodes.Slice) else self.generic_visit(node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        operands = [node.expr, *(operand.expr for operand in node.ops)]
        if any(operand.op in ("in", "notin") for operand in node.ops) or not any(map(_is_constant, operands)):
            node.expr = _read_unless_constant(node.expr)
            for operand in node.ops:
                operand.expr = _read_unless_constant(operand.expr)
        return node


class _GenerationTag(Extension):
    """`{% generation %}` marks what a model has said, for masks that we take from the data instead."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Callable[[], str]) -> str:
        return caller()


class _TemplateDict:
    """`dict` as a function of templates, without the type's own attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _TemplateNamespace(jinja2.utils.Namespace):
    """A namespace that refuses names with a leading underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace has no attributes with underscores ({name!r})")


def _passed(name: str, node: Any) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _is_constant(node: nodes.Node) -> bool:
    if isinstance(node, nodes.List | nodes.Tuple):
        return all(map(_is_constant, node.items))
    return isinstance(node, nodes.Const)


def _read_unless_constant(node: nodes.Expr) -> nodes.Expr:
    return node if _is_constant(node) else _passed(READ, node)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own tojson escapes HTML; a prompt must not."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    if len(form) > _LONGEST_DATE_FORMAT:
        raise TemplateLimit(f"it writes a date of more than {_LONGEST_DATE_FORMAT} characters")
    return datetime.now().strftime(form)


def _lipsum(n: int = 5, html: bool = True, min: int = 20, max: int = 100) -> Any:
    current_meter().spend(64 * (1 + abs(n)) * (1 + abs(min) + abs(max)))
    return jinja2.utils.generate_lorem_ipsum(n, html, min, max)
