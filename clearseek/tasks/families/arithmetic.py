"""Chains of additions and subtractions of two-digit numbers; at level 3 also a product."""

from random import Random

from clearseek.tasks.families import steps
from clearseek.tasks.families.draw import between, pick, signed_terms
from clearseek.tasks.problem import Problem

NAME = "arithmetic"
LEVELS = 3

_PROMPTS = {
    "en": ("Compute {}.", "What is {}?"),
    "ko": ("{}의 값은?", "계산하시오: {}"),
    "zh": ("计算{}。", "{}等于多少？"),
}


def generate(rng: Random, level: int, language: str) -> Problem:
    """Level n has n+1 terms; half of level 3 begins with a product and has three."""
    template = pick(rng, _PROMPTS[language])
    worked: list[str] = []
    if level == 3 and rng.random() < 0.5:
        a, b = between(rng, 11, 33), between(rng, 2, 6)
        text, value, count = f"{a}*{b}", a * b, 2
        worked.append(steps.multiply(a, b))
    else:
        value, count = between(rng, 10, 99), level
        text = str(value)
    for term in signed_terms(rng, value, count):
        text += f"{term:+d}"
        worked.append(steps.signed(value, term))
        value += term
    solution = steps.chain(language, worked)
    return Problem(NAME, language, level, template.format(text), str(value), "number", solution)
