"""Reach a target with given numbers, each used once: the solution tries, misses and goes back.

The search is depth first in a fixed order (+, then bigger minus smaller, then *), so that its next step
can be foreseen from what was tried; `(a∘b)` always stands in brackets in the answer, as it was built.
"""

from collections.abc import Iterator
from random import Random

from clearseek.tasks.families.draw import between, pick
from clearseek.tasks.families.steps import GAP, NO, YES
from clearseek.tasks.problem import Problem

NAME = "countdown"
LEVELS = 3

_PROMPTS = {
    "en": ("Use {numbers} once each to make {target}.", "Make {target} from {numbers}, each once."),
    "ko": ("{numbers} 한 번씩 써서 {target} 만들기.", "목표 {target}: {numbers} 한 번씩."),
    "zh": ("用{numbers}各一次得到{target}。", "目标{target}：{numbers}各用一次。"),
}
_ONWARD = {"en": "", "ko": "", "zh": "再"}  # keeps the numbers of two steps apart where no space does
_LARGEST = 99


def generate(rng: Random, level: int, language: str) -> Problem:
    """Two numbers with + - *; three with + -; three with + - *."""
    template = pick(rng, _PROMPTS[language])
    if level == 1:
        numbers = [between(rng, 2, 9), between(rng, 2, 40)]
        if rng.random() < 0.5:
            numbers.reverse()
    else:
        numbers = [between(rng, 2, 30 if level == 2 else 12) for _ in range(3)]
    attempts = list(_search(numbers, "+-" if level == 2 else "+-*"))
    target = pick(rng, [value for _, value, _ in attempts if value is not None])
    solution, answer = _until(target, attempts, language)
    prompt = template.format(numbers=",".join(map(str, numbers)), target=target)
    return Problem(NAME, language, level, prompt, answer, "countdown", solution)


def _combine(a: int, b: int, operators: str) -> Iterator[tuple[str, int, bool]]:
    """Each way to combine two values, bigger first: its text, value, and whether the two changed places."""
    swapped = b > a
    big, small = (b, a) if swapped else (a, b)
    for operator in operators:
        value = big + small if operator == "+" else big - small if operator == "-" else big * small
        if 0 < value <= (_LARGEST if operator == "*" else value):
            yield f"{big}{operator}{small}", value, swapped


def _search(numbers: list[int], operators: str) -> Iterator[tuple[str, int | None, str]]:
    """Attempts in order: the step's text, the value reached (None half-way), and the whole expression."""
    for text, value, _ in _combine(numbers[0], numbers[1], operators):
        if len(numbers) == 2:
            yield f"{text}={value}", value, text
            continue
        yield f"{text}={value}", None, ""
        for second, total, swapped in _combine(value, numbers[2], operators):
            operator = second[len(str(max(value, numbers[2])))]
            whole = f"{numbers[2]}{operator}({text})" if swapped else f"({text}){operator}{numbers[2]}"
            yield f"{second}={total}", total, whole


def _until(target: int, attempts: list[tuple[str, int | None, str]], language: str) -> tuple[str, str]:
    """The search up to its first hit, and the expression that hit."""
    words: list[str] = []
    for text, value, whole in attempts:
        if value == target:
            return GAP[language].join([*words, text + YES[language]]), whole
        words.append(text + (_ONWARD if value is None else NO)[language])
    raise AssertionError(f"no attempt reaches {target}")
