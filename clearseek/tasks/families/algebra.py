"""Linear equations in one unknown, with whole solutions."""

from random import Random

from clearseek.tasks.families import steps
from clearseek.tasks.families.draw import between, pick
from clearseek.tasks.problem import Problem

NAME = "algebra"
LEVELS = 3

_PROMPTS = {
    "en": ("Solve {}.", "What is x if {}?"),
    "ko": ("{}의 해는?", "x의 값은? {}"),
    "zh": ("解方程{}。", "{}，x是多少？"),
}


def generate(rng: Random, level: int, language: str) -> Problem:
    """x±b=c or ax=c; ax±b=c; ax+b=dx+e."""
    template = pick(rng, _PROMPTS[language])
    equation, worked, x = (_one_step, _two_steps, _both_sides)[level - 1](rng)
    solution = steps.chain(language, worked)
    return Problem(NAME, language, level, template.format(equation), str(x), "number", solution)


def _one_step(rng: Random) -> tuple[str, list[str], int]:
    if rng.random() < 0.3:
        a, x = between(rng, 2, 9), between(rng, 2, 30)
        return f"{a}x={a * x}", [steps.divide(a * x, a)], x
    x, b = between(rng, 2, 99), between(rng, 2, 99)
    if x > b and rng.random() < 0.5:
        return f"x-{b}={x - b}", [steps.add(x - b, b)], x
    return f"x+{b}={x + b}", [steps.subtract(x + b, b)], x


def _two_steps(rng: Random) -> tuple[str, list[str], int]:
    a, x, b = between(rng, 2, 9), between(rng, 2, 19), between(rng, 2, 60)
    product = a * x
    if product > b and rng.random() < 0.5:
        return f"{a}x-{b}={product - b}", [steps.add(product - b, b), steps.divide(product, a)], x
    return f"{a}x+{b}={product + b}", [steps.subtract(product + b, b), steps.divide(product, a)], x


def _both_sides(rng: Random) -> tuple[str, list[str], int]:
    d = between(rng, 2, 7)
    a, x, b = between(rng, d + 1, 9), between(rng, 2, 15), between(rng, 2, 50)
    right = (a - d) * x + b
    worked = [steps.subtract(a, d), steps.subtract(right, b)]
    if a - d > 1:
        worked.append(steps.divide(right - b, a - d))
    return f"{a}x+{b}={d}x+{right}", worked, x
