"""The next number of a sequence: guess the rule, check it, and take another where it fails."""

from random import Random

from clearseek.tasks.families import steps
from clearseek.tasks.families.draw import between, pick
from clearseek.tasks.problem import Problem

NAME = "sequences"
LEVELS = 3

_PROMPTS = {
    "en": ("What comes next: {}?", "Find the next number: {}"),
    "ko": ("{} 다음 수는?", "다음 수를 쓰시오: {}"),
    "zh": ("{}的下一个数是？", "写出下一个数：{}"),
}


def generate(rng: Random, level: int, language: str) -> Problem:
    """A constant difference; that or a constant ratio; growing differences or sums of the two before."""
    template = pick(rng, _PROMPTS[language])
    terms, worked = _build(rng, level, language)
    prompt = template.format(",".join(map(str, terms[:-1])))
    return Problem(NAME, language, level, prompt, str(terms[-1]), "number", worked)


def _build(rng: Random, level: int, language: str) -> tuple[list[int], str]:
    if level == 1:
        terms, last = _even_steps(rng, 12)
        return terms, steps.chain(language, [_difference(terms[0], terms[1]), last])
    if level == 2:
        return _ratio(rng, language) if rng.random() < 0.3 else _checked_steps(rng, language)
    return _sums(rng, language) if rng.random() < 0.4 else _growing(rng, language)


def _difference(a: int, b: int) -> str:
    return steps.subtract(max(a, b), min(a, b))


def _even_steps(rng: Random, largest: int) -> tuple[list[int], str]:
    step, start = between(rng, 2, largest), between(rng, 1, 50)
    terms = [start + i * step for i in range(5)]
    if rng.random() < 0.4:
        terms.reverse()
        return terms, steps.subtract(terms[3], step)
    return terms, steps.add(terms[3], step)


def _checked_steps(rng: Random, language: str) -> tuple[list[int], str]:
    terms, last = _even_steps(rng, 25)
    tests = [_difference(terms[0], terms[1]), _difference(terms[1], terms[2]) + steps.YES[language]]
    return terms, steps.chain(language, [*tests, last])


def _ratio(rng: Random, language: str) -> tuple[list[int], str]:
    ratio = pick(rng, (2, 2, 3))
    start = between(rng, 2, 20 if ratio == 2 else 6)
    terms = [start * ratio**i for i in range(5)]
    a, b, c = terms[:3]
    tests = [steps.subtract(b, a), steps.subtract(c, b) + steps.NO[language], steps.divide(b, a)]
    return terms, steps.chain(language, [*tests, f"{terms[3]}*{ratio}={terms[4]}"])


def _growing(rng: Random, language: str) -> tuple[list[int], str]:
    start, step, growth = between(rng, 1, 30), between(rng, 1, 12), between(rng, 1, 6)
    terms = [start]
    for i in range(4):
        terms.append(terms[-1] + step + i * growth)
    a, b, c, d, _ = terms
    if a + b == c:
        return _growing(rng, language)
    differences = [steps.subtract(b, a), steps.subtract(c, b), steps.subtract(d, c)]
    last = step + 2 * growth
    grown = [steps.subtract(step + growth, step), steps.add(last, growth), steps.add(d, last + growth)]
    return terms, steps.chain(language, [steps.add(a, b) + steps.NO[language], *differences, *grown])


def _sums(rng: Random, language: str) -> tuple[list[int], str]:
    terms = [between(rng, 1, 20), between(rng, 1, 20)]
    if 3 * terms[0] == 2 * terms[1]:  # its differences grow evenly too, and would go on otherwise
        return _sums(rng, language)
    for _ in range(3):
        terms.append(terms[-2] + terms[-1])
    a, b, _, d, _ = terms
    return terms, steps.chain(language, [steps.add(a, b) + steps.YES[language], steps.add(terms[2], d)])
