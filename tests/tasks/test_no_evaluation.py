"""Law 5 in this room, where a model's text arrives: no evaluator under any name, nor inside math-verify."""

import ast
import json
from pathlib import Path

import pytest

from clearseek import tasks
from clearseek.tasks.verify import verify

EVALUATORS = {"eval", "exec", "compile", "__import__", "parse_expr", "sympify"}
NAMED_ALIKE = {("re", "compile")}


def evaluating_calls(tree: ast.AST) -> list[int]:
    """The lines that call an evaluator."""
    lines = []
    for call in (node.func for node in ast.walk(tree) if isinstance(node, ast.Call)):
        owner = getattr(getattr(call, "value", None), "id", "")
        name = getattr(call, "id", None) or getattr(call, "attr", None)
        if name in EVALUATORS and (owner, name) not in NAMED_ALIKE:
            lines.append(call.lineno)
    return lines


def test_nothing_in_the_room_evaluates_text() -> None:
    room = Path(tasks.__file__).parent
    found = {path.name: evaluating_calls(ast.parse(path.read_text("utf-8"))) for path in room.rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_each_way_to_evaluate_is_seen() -> None:
    for text in (
        "eval('1')",
        "exec('1')",
        "compile('1', '', 'eval')",
        "__import__('os')",
        "sympy.sympify('1')",
    ):
        assert evaluating_calls(ast.parse(text)) == [1]
    assert evaluating_calls(ast.parse("re.compile('a'); loader.exec_module(module)")) == []


def test_math_verify_evaluates_nothing_of_a_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that sympy evaluates goes through one function; its modules do so when they are first imported."""
    import sympy.physics.units  # noqa: F401
    from sympy.parsing import sympy_parser

    evaluated: list[object] = []
    monkeypatch.setattr(sympy_parser, "eval_expr", lambda *given: evaluated.append(given[0]))
    rows = [
        json.loads(line)
        for corpus in ("adversarial.jsonl", "honest.jsonl")
        for line in (Path(__file__).parent / corpus).read_text("utf-8").splitlines()
    ]
    for row in rows:
        if row["verifier"] == "math":
            verify("math", row["candidate"], row["answer"])
    assert evaluated == []
    sympy_parser.parse_expr("1+1")
    assert len(evaluated) == 1
