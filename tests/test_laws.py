"""The laws of the house that can be read off the source, checked on every file."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "clearseek"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
WITHOUT_TORCH = ("config", "ledger", "text", "tasks", "data", "trace", "claims", "papers", "privacy")
MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 70

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def violations(check: Callable[[ast.Module], Iterator[tuple[int, str]]]) -> list[str]:
    """`file:line: what` for everything that `check` finds in any source file."""
    found = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        found += [f"{path.relative_to(ROOT)}:{line}: {what}" for line, what in check(tree)]
    return found


def assert_none(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


# Law 9: importing does nothing.

IMPORT_PROBE = """
import importlib, os, socket, sys, threading
def refuse(*args, **kwargs):
    raise AssertionError("a connection was opened at import")
socket.socket.connect = refuse
before = dict(os.environ)
broken = []
for name in sys.argv[1:]:
    importlib.import_module(name)
    for heavy in ("torch", "transformers"):
        if heavy in sys.modules:
            broken.append(f"{name} imports {heavy}")
            del sys.modules[heavy]
    if threading.active_count() > 1:
        broken.append(f"{name} starts a thread")
    if dict(os.environ) != before:
        broken.append(f"{name} changes the environment")
        before = dict(os.environ)
sys.exit("\\n".join(broken) or None)
"""


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_importing_a_light_room_does_nothing(room):
    modules = [module_name(path) for path in SOURCES if path.relative_to(PACKAGE).parts[0] == room]
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_PROBE, *modules],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_importing_any_room_prints_nothing_and_leaves_torch_as_it_was():
    modules = [module_name(path) for path in SOURCES if path.name != "__main__.py"]
    if importlib.util.find_spec("triton") is None:  # it comes with PyTorch for CUDA
        modules = [name for name in modules if not name.startswith("clearseek.engine.gpu.")]
    probe = (
        "import importlib, sys, torch\n"
        "before = (torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed())\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "after = (torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed())\n"
        "sys.exit(None if before == after else f'{before} became {after}')"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe, *modules], capture_output=True, text=True, timeout=110, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_opening_a_model_loads_nothing_that_compiles():
    probe = (
        "import sys, clearseek, clearseek.engine.session, clearseek.engine.speculation\n"
        "from clearseek.config.shipped import shipped_model\n"
        "clearseek.load(shipped_model(), 'float32', 'cpu')\n"
        "slow = ('torch._dynamo', 'torch._inductor', 'sympy')\n"
        "sys.exit(', '.join(name for name in slow if name in sys.modules) or None)"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=100, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


# Law 5: nothing ever evaluates text.


def calls_of_evaluation(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in ("eval", "exec"):
            yield node.lineno, f"calls {called.id}()"
        if (
            isinstance(called, ast.Attribute)
            and called.attr in ("eval", "exec")
            and isinstance(called.value, ast.Name)
            and called.value.id in ("builtins", "__builtins__")
        ):
            yield node.lineno, f"calls {called.value.id}.{called.attr}()"


def test_nothing_evaluates_text():
    assert_none(violations(calls_of_evaluation))


# Law 13: errors are neither swallowed nor caught blindly.


def swallowed_errors(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        blind = isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
        if node.type is None:
            yield node.lineno, "bare except"
        elif blind and all(isinstance(part, ast.Pass | ast.Continue | ast.Constant) for part in node.body):
            yield node.lineno, "a blind except that swallows"


def test_no_error_is_swallowed():
    assert_none(violations(swallowed_errors))


# No room without a name, no file or function that does not fit a head.


def test_no_file_is_named_for_nothing():
    nameless = ("utils", "util", "common", "misc", "helpers")
    assert_none([str(path) for path in PACKAGE.rglob("*") if path.stem in nameless])


def test_files_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert_none([f"{path.relative_to(ROOT)}: {n} lines" for path, n in lengths.items() if n > MAX_FILE_LINES])


def long_functions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, Function) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {lines} lines"


def test_functions_are_short():
    assert_none(violations(long_functions))


# Every public name says what it is.


def undocumented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    if ast.get_docstring(tree) is None:
        yield 1, "module without a docstring"
    for node in tree.body:
        yield from undocumented_in(node)


def undocumented_in(node: ast.stmt) -> Iterator[tuple[int, str]]:
    if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
        return
    if ast.get_docstring(node) is None:
        yield node.lineno, f"{node.name} without a docstring"


def test_every_public_name_has_a_docstring():
    assert_none(violations(undocumented))


def unannotated(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, Function) and node.returns is None:
            yield node.lineno, f"{node.name} does not say what it returns"


def test_every_function_is_annotated():
    assert_none(violations(unannotated))


# Where a test module skips, one that imports from it can't be read, unless it has skipped by itself before.


def skips_and_imports(source: str) -> tuple[set[str], dict[str, set[str]]]:
    """What a test module skips without; of each test module it imports from, what it skipped without before."""
    skips: set[str] = set()
    imports: dict[str, set[str]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[-1].startswith("test_"):
            imports[node.module or ""] = set(skips)
        called = node.value if isinstance(node, ast.Assign | ast.Expr) else None
        if isinstance(called, ast.Call) and ast.unparse(called.func) == "pytest.importorskip":
            skips.add(ast.literal_eval(called.args[0]))
    return skips, imports


def unreadable(sources: dict[str, str]) -> list[str]:
    """`A imports from B`, where A can't be read because B skips."""
    read = {name: skips_and_imports(source) for name, source in sources.items()}
    return [
        f"{name} imports from {other}, which skips without {', '.join(sorted(missing))}"
        for name, (_, imports) in read.items()
        for other, skipped in imports.items()
        if (missing := read[other][0] - skipped)
    ]


def test_no_test_is_unreadable_where_another_skips():
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    assert_none(unreadable({module_name(path): path.read_text(encoding="utf-8") for path in paths}))


def test_a_test_that_imports_from_one_that_skips_is_found():
    skipping = 'import pytest\nthere = pytest.importorskip("there")\n'
    importing = "from tests.test_a import helper\n"
    assert unreadable({"tests.test_a": skipping, "tests.test_b": importing})
    assert not unreadable({"tests.test_a": skipping, "tests.test_b": skipping + importing})


# The checks themselves find what they are for.


@pytest.mark.parametrize(
    ("check", "source"),
    [
        (calls_of_evaluation, "'''m'''\nx = eval('1')"),
        (calls_of_evaluation, "'''m'''\nimport builtins\nbuiltins.exec('1')"),
        (swallowed_errors, "'''m'''\ntry:\n    x = 1\nexcept:\n    raise"),
        (swallowed_errors, "'''m'''\ntry:\n    x = 1\nexcept Exception:\n    pass"),
        (long_functions, "def f():\n" + "    x = 1\n" * 80),
        (undocumented, "x = 1"),
        (undocumented, "'''m'''\nclass Thing:\n    x = 1"),
        (unannotated, "def f(): ..."),
    ],
)
def test_checks_find_a_violation(check, source):
    assert len(list(check(ast.parse(source)))) == 1


def test_checks_leave_torch_modules_eval_method_alone():
    assert not list(calls_of_evaluation(ast.parse("model.eval()")))
