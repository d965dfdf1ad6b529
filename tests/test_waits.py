"""Law 7: no wait without a bound, read off the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "clearseek"
WITHOUT_ARGUMENTS = {"wait", "communicate", "join", "acquire", "get", "recv", "accept", "barrier", "poll"}
NEED_TIMEOUT = {
    "run": "subprocess",
    "check_output": "subprocess",
    "urlopen": "request",
    "init_process_group": "dist",
}
LEAST_ARGUMENTS = {"select": 4}


def endless(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Calls that wait for something else and say no longest time; `Popen.poll` returns at once and has no bound."""
    bounded = {id(waited) for node in ast.walk(tree) for waited in _given_a_bound(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or id(node) in bounded:
            continue
        name, owner = node.func.attr, node.func.value
        keywords = {keyword.arg for keyword in node.keywords}
        if name in WITHOUT_ARGUMENTS and not node.args and not keywords and not _makes_poll(node):
            yield node.lineno, name
        needs_timeout = isinstance(owner, ast.Name) and NEED_TIMEOUT.get(name) == owner.id
        if needs_timeout and "timeout" not in keywords:
            yield node.lineno, name
        if name in LEAST_ARGUMENTS and len(node.args) < LEAST_ARGUMENTS[name]:
            yield node.lineno, name
        if name == "waitpid" and not any("WNOHANG" in ast.dump(argument) for argument in node.args):
            yield node.lineno, name


def _given_a_bound(node: ast.AST) -> list[ast.expr]:
    """What `asyncio.wait_for` is given with a longest time."""
    is_bound = (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "wait_for"
    )
    return node.args[:1] if is_bound and len(node.args) == 2 else []


def _makes_poll(node: ast.Call) -> bool:
    """`select.poll()` makes a poll object; it is asked with a bound later."""
    owner = node.func.value
    return node.func.attr == "poll" and isinstance(owner, ast.Name) and owner.id == "select"


def test_every_wait_has_a_bound():
    """T18."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        for line, call in endless(ast.parse(path.read_text(encoding="utf-8"))):
            found.append(f"{name}:{line}: {call} without a bound")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "child.wait()", "child.communicate()", "thread.join()", "queue.get()", "subprocess.run(['a'])",
        "dist.init_process_group('gloo')", "dist.barrier()", "select.select([a], [], [])", "os.waitpid(1, 0)",
        "asyncio.wait_for(event.wait())",
    ],
)  # fmt: skip
def test_the_check_finds_an_endless_wait(source):
    assert len(list(endless(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "child.wait(10)", "child.communicate(timeout=3)", "', '.join(names)", "table.get('a')", "select.poll()",
        "subprocess.run(['a'], timeout=1)", "os.waitpid(1, os.WNOHANG)", "select.select([a], [], [], 2)",
        "asyncio.wait_for(event.wait(), 3)",
    ],
)  # fmt: skip
def test_the_check_leaves_bounded_ones_alone(source):
    assert list(endless(ast.parse(source))) == []
