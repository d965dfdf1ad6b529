"""Users' own problems from JSON lines: ours (prompt, answer, verifier) or GSM8K's (question, answer)."""

import json
import re
from difflib import get_close_matches
from pathlib import Path

from clearseek.config.errors import InputError
from clearseek.tasks.language import detect
from clearseek.tasks.problem import LANGUAGES, Problem
from clearseek.tasks.verify import VERIFIERS, Verdict, check_verifier, verify

_FIELDS = ("prompt", "answer", "verifier", "solution", "language", "level", "family")
_GSM8K_FIELDS = {"question", "answer"}
_DEFAULT_VERIFIER = "exact"
_CALCULATION = re.compile(r"<<[^<>]*>>")


def load_problems(path: str | Path) -> list[Problem]:
    """The problems of a file, one JSON object a line; blank lines are skipped.

    `prompt` and `answer` are required; `verifier` is `exact` unless said, and a function's path is taken from
    the file's folder. Raises InputError naming file and line for whatever is missing, unknown or malformed.
    """
    path = Path(path)
    problems = [_problem(line, place, path.parent) for place, line in _rows(path)]
    if not problems:
        raise InputError(f"{path}: holds no problems; expected JSON lines with prompt, answer and verifier")
    return problems


def place_of(path: str | Path, problem: Problem) -> str | None:
    """Where a problem stands in a file, as FILE:LINE; None where it doesn't. InputError as `load_problems`."""
    path = Path(path)
    return next((place for place, line in _rows(path) if _problem(line, place, path.parent) == problem), None)


def _rows(path: Path) -> list[tuple[str, str]]:
    """The lines that are not blank, each with its place."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return [(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def _problem(line: str, place: str, folder: Path) -> Problem:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place}: not valid JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{place}: expected a JSON object with prompt, answer and verifier")
    if row.keys() == _GSM8K_FIELDS:
        return _gsm8k(row, place)
    _check_fields(row, place)
    verifier = _verifier(_text(row, "verifier", place, _DEFAULT_VERIFIER), place, folder)
    prompt, answer = _text(row, "prompt", place), _text(row, "answer", place)
    _check_answer(verifier, answer, place)
    language = _text(row, "language", place, detect(prompt))
    if language not in LANGUAGES:
        raise InputError(f"{place}: language {language!r} is not one of {', '.join(LANGUAGES)}")
    return Problem(
        family=_text(row, "family", place, "user"),
        language=language,
        level=_level(row, place),
        prompt=prompt,
        answer=answer,
        verifier=verifier,
        solution=_text(row, "solution", place, ""),
    )


def _gsm8k(row: dict[str, object], place: str) -> Problem:
    """GSM8K: the answer field holds the solution, with calculations in <<>>, and ends in `#### ANSWER`."""
    solution, marker, answer = _text(row, "answer", place).rpartition("####")
    if not marker:
        raise InputError(f"{place}: a question's answer must end in '#### ANSWER' (GSM8K's layout)")
    answer = answer.strip()
    _check_answer("number", answer, place)
    question = _text(row, "question", place)
    thought = _CALCULATION.sub("", solution).strip()
    return Problem("gsm8k", detect(question), 1, question, answer, "number", thought)


def _check_fields(row: dict[str, object], place: str) -> None:
    for name in row:
        if name not in _FIELDS:
            near = get_close_matches(name, _FIELDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(_FIELDS)}"
            raise InputError(f"{place}: unknown field {name!r}{hint}")
    for name in ("prompt", "answer"):
        if name not in row:
            raise InputError(f"{place}: missing field {name!r}; each line needs prompt and answer")


def _text(row: dict[str, object], name: str, place: str, default: str | None = None) -> str:
    """A field as text; numbers are taken as they are written, and JSON values may answer as such."""
    value = row.get(name, default)
    if name == "answer" and isinstance(value, (int, float, dict, list)):
        value = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        raise InputError(f"{place}: {name} must be text, not {json.dumps(value)[:40]}")
    if default is None and not value.strip():
        raise InputError(f"{place}: {name} is empty")
    return value


def _level(row: dict[str, object], place: str) -> int:
    level = row.get("level", 1)
    if not isinstance(level, int) or isinstance(level, bool) or level < 1:
        raise InputError(f"{place}: level must be a whole number from 1, not {json.dumps(level)[:40]}")
    return level


def _verifier(name: str, place: str, folder: Path) -> str:
    """A verifier's name, with a function's file made absolute."""
    file, colon, function = name.rpartition(":")
    if colon and file.endswith(".py"):
        name = f"{(folder / file).resolve()}:{function}"
    try:
        check_verifier(name)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    return name


def _check_answer(verifier: str, answer: str, place: str) -> None:
    """A reference that its verifier cannot read would make every verdict an error."""
    if verifier in VERIFIERS and verifier != "math" and verify(verifier, "", answer) is Verdict.error:
        raise InputError(f"{place}: verifier {verifier!r} cannot read the answer {answer[:60]!r}")
