"""Problems from the reasoning-gym library (the extra `gym`), with its known traps closed.

Its data sets draw item i from `seed + i`, so neighbouring seeds share nearly all items: ours are spaced wide
apart and split by content. Its scorers pay a little for wrong answers: only a full score is correct. Some
scorers evaluate the candidate as Python, and some pay for anything: those data sets are refused.
"""

import ast
import inspect
import json
import textwrap
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from clearseek.config.errors import InputError
from clearseek.tasks.language import detect
from clearseek.tasks.problem import Problem
from clearseek.tasks.registry import Split
from clearseek.tasks.verifiers.verdict import Verdict, verdict_of

_SEED_SPACING = 1 << 20
_TRIES_PER_PROBLEM = 40
_FULL_SCORE = 1.0 - 1e-9
_RUBBISH = "?"
_EVALUATORS = {"eval", "exec", "compile", "parse_expr", "sympify"}


def load_gym(
    name: str, count: int, seed: int, split: Split, config: dict[str, Any] | None = None
) -> list[Problem]:
    """`count` different problems of one data set, `config` being its own options, split by content hash.

    Raises InputError without the extra, for an unknown or refused data set, wrong options, too few problems.
    """
    config = config or {}
    size = count * _TRIES_PER_PROBLEM
    if size > _SEED_SPACING:
        raise InputError(
            f"gym: at most {_SEED_SPACING // _TRIES_PER_PROBLEM} problems of a data set, not {count}"
        )
    dataset = _dataset(name, seed, size, json.dumps(config, sort_keys=True))
    problems: dict[str, Problem] = {}
    for index in range(min(size, len(dataset))):
        if len(problems) == count:
            break
        entry = dataset[index]
        address = json.dumps({"seed": seed, "size": size, "index": index, "config": config}, sort_keys=True)
        prompt, answer = str(entry["question"]).strip(), str(entry["answer"] or "")
        if _points(dataset, _RUBBISH, entry) >= _FULL_SCORE:
            raise InputError(f"gym: {name} is refused, because its scorer takes any answer for right")
        problem = Problem(f"gym:{name}", detect(prompt), 1, prompt, answer, f"gym:{name}#{address}")
        if problem.held_out == (split == "held_out"):
            problems.setdefault(problem.id, problem)
    if len(problems) < count:
        raise InputError(
            f"gym: {name} gave only {len(problems)} different {split} problems of {count} asked for"
        )
    return list(problems.values())


def score(verifier: str, candidate: str, answer: str) -> Verdict:
    """The library's own score of a candidate for the problem that the verifier addresses."""
    name, _, address = verifier.removeprefix("gym:").partition("#")
    try:
        at = json.loads(address)
        seed, size, index, config = (
            at["seed"],
            at["size"],
            at["index"],
            json.dumps(at["config"], sort_keys=True),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"verifier {verifier[:80]!r} is not one that load_gym made") from error
    dataset = _dataset(name, seed, size, config)
    if not candidate:
        return Verdict.unparseable
    points = _points(dataset, candidate, dataset[index])
    return Verdict.unparseable if points < 0 else verdict_of(points >= _FULL_SCORE)


def _points(dataset: Any, candidate: str, entry: dict[str, Any]) -> float:
    """The library's score, -1 where its parser raised on the candidate."""
    try:
        return float(dataset.score_answer(candidate, entry))
    except (ValueError, TypeError, LookupError):
        return -1.0


def require_gym() -> Any:
    """The library, or InputError saying how to get it."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise InputError("reasoning-gym is not installed; run: pip install 'clearseek[gym]'") from error
    return reasoning_gym


@lru_cache(maxsize=64)
def _dataset(name: str, seed: int, size: int, config: str) -> Any:
    gym = require_gym()
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        near = get_close_matches(name, DATASETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"gym: no data set {name!r}{hint}")
    if name == "composite" or _evaluates(DATASETS[name][0].score_answer):
        raise InputError(f"gym: {name} is refused, because its scorer evaluates answers as Python code")
    try:
        return gym.create_dataset(name, seed=seed * _SEED_SPACING, size=size, **json.loads(config))
    except (TypeError, ValueError, AssertionError) as error:
        raise InputError(f"gym: {name} does not take these options: {error}") from error


def _evaluates(function: Any) -> bool:
    """Whether the source of a scorer calls something that evaluates text."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = {getattr(call, "id", None) or getattr(call, "attr", None) for call in calls}
    return bool(names & _EVALUATORS)
