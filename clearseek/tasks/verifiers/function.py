"""A user's own verifier: `path/to/file.py:function`, a function of (candidate, answer).

It is the user's code and runs with the user's rights; only its time and memory are bounded, by the worker.
"""

import ast
import sys
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from clearseek.config.errors import InputError
from clearseek.tasks.verifiers.verdict import Verdict, verdict_of


def is_function(name: str) -> bool:
    """Whether a verifier's name has the form of a function by path."""
    path, colon, function = name.rpartition(":")
    return bool(colon) and path.endswith(".py") and function.isidentifier()


def check_function(name: str) -> None:
    """Raise InputError unless the file exists and defines the function at its top level; runs nothing."""
    path, _, function = name.rpartition(":")
    try:
        tree = ast.parse(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"verifier {name!r}: cannot read {path}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise InputError(f"verifier {name!r}: {path} is not Python: {error}") from error
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if function not in defined:
        known = ", ".join(defined) or "none"
        raise InputError(f"verifier {name!r}: {path} defines no function {function!r}; it defines: {known}")


def call_function(name: str, candidate: str, answer: str) -> Verdict:
    """The user's verdict: True, False, or one of the four names. Raises InputError for anything else."""
    said = load_function(name)(candidate, answer)
    if isinstance(said, bool):
        return verdict_of(said)
    if isinstance(said, str) and said in Verdict.__members__:
        return Verdict(said)
    raise InputError(f"verifier {name!r} returned {said!r}; expected True, False or {', '.join(Verdict)}")


@cache
def load_function(name: str) -> Callable[[str, str], object]:
    """The function itself, its file imported once per process."""
    check_function(name)
    path, _, function = name.rpartition(":")
    resolved = Path(path).resolve()
    unique = f"clearseek_verifier_{sha256(str(resolved).encode()).hexdigest()[:16]}"
    if unique not in sys.modules:
        spec = spec_from_file_location(unique, resolved)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[unique] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[unique]
            raise
    found: Callable[[str, str], object] = getattr(sys.modules[unique], function)
    return found
