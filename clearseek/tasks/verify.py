"""Verifiers by name, run in this process; `clearseek.tasks.worker` runs them where they can be stopped."""

from collections.abc import Callable
from difflib import get_close_matches

from clearseek.config.errors import InputError
from clearseek.tasks.verifiers.countdown import countdown
from clearseek.tasks.verifiers.function import call_function, check_function, is_function, load_function
from clearseek.tasks.verifiers.mathematics import math
from clearseek.tasks.verifiers.number import number
from clearseek.tasks.verifiers.structured import json_value
from clearseek.tasks.verifiers.text import choice, exact, regex
from clearseek.tasks.verifiers.verdict import Verdict as Verdict

VERIFIERS: dict[str, Callable[[str, str], Verdict]] = {
    "number": number,
    "exact": exact,
    "choice": choice,
    "math": math,
    "regex": regex,
    "json": json_value,
    "countdown": countdown,
}


def verify(verifier: str, candidate: str, answer: str) -> Verdict:
    """The verdict on a candidate's final answer. Without limits of time: a user's function may hang or raise.

    Raises InputError for an unknown verifier.
    """
    if verifier in VERIFIERS:
        return VERIFIERS[verifier](candidate, answer)
    if verifier.startswith("gym:"):
        from clearseek.tasks.gym import score

        return score(verifier, candidate, answer)
    check_verifier(verifier)
    return call_function(verifier, candidate, answer)


def check_verifier(verifier: str) -> None:
    """Raise InputError, with what is known, where the verifier does not exist; runs nothing of the user's."""
    if verifier in VERIFIERS or verifier.startswith("gym:"):
        return
    if is_function(verifier):
        check_function(verifier)
        return
    near = get_close_matches(verifier, VERIFIERS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    known = ", ".join(VERIFIERS)
    raise InputError(f"unknown verifier {verifier!r}; {hint}known: {known}, or path/to/file.py:function")


def load_verifier(verifier: str) -> None:
    """Import ahead of its first use what a verifier needs and takes long to import."""
    if verifier == "math":
        math("x", "x")  # imports sympy and builds the parser's tables
    elif verifier.startswith("gym:"):
        from clearseek.tasks.gym import require_gym

        require_gym()
    elif verifier not in VERIFIERS:
        load_function(verifier)
