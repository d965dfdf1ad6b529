"""Work on the digits of a number: add them up, reverse them, count one of them."""

from random import Random

from clearseek.tasks.families import steps
from clearseek.tasks.families.draw import between, pick
from clearseek.tasks.problem import Problem

NAME = "digits"
LEVELS = 3

_SUM = {
    "en": ("What is the digit sum of {}?", "Add the digits of {}."),
    "ko": ("{}의 각 자리 합은?", "{}의 자리 수를 더하시오."),
    "zh": ("{}的数字和是？", "把{}的数字相加。"),
}
_REVERSE = {
    "en": ("Reverse {}.", "Write {} in reverse."),
    "ko": ("{} 거꾸로 쓰시오.", "거꾸로: {}"),
    "zh": ("把{}倒写。", "倒写{}。"),
}
_COUNT = {
    "en": ("How many times is {digit} in {number}?", "Count {digit} in {number}."),
    "ko": ("{number}에 {digit} 몇 번?", "{number}에서 {digit}의 개수는?"),
    "zh": ("{number}中有几个{digit}？", "数{number}中的{digit}。"),
}
_LAST_LEFT = {"en": ("last ", " left "), "ko": ("끝 ", " 남음 "), "zh": ("尾", "剩")}


def generate(rng: Random, level: int, language: str) -> Problem:
    """Three digits at level 1, four or five at level 2, six at level 3."""
    length = (3, between(rng, 4, 5), 6)[level - 1]
    kind = pick(rng, (_SUM, _REVERSE, _COUNT))
    template = pick(rng, kind[language])
    if kind is _COUNT:
        return _count(rng, length, level, language, template)
    number = "".join(str(between(rng, 1, 9)) for _ in range(length))
    answer, solution = (_sum if kind is _SUM else _reverse)(number, language)
    verifier = "number" if kind is _SUM else "exact"
    return Problem(NAME, language, level, template.format(number), answer, verifier, solution)


def _count(rng: Random, length: int, level: int, language: str, template: str) -> Problem:
    digit = str(between(rng, 1, 9))
    number = "".join(digit if rng.random() < 0.4 else str(between(rng, 1, 9)) for _ in range(length))
    seen = [f"{d}:{number[: i + 1].count(digit)}" for i, d in enumerate(number)]
    answer = str(number.count(digit))
    solution = steps.chain(language, [",".join(seen), answer])
    prompt = template.format(digit=digit, number=number)
    return Problem(NAME, language, level, prompt, answer, "number", solution)


def _sum(number: str, language: str) -> tuple[str, str]:
    total, worked = int(number[0]), []
    for digit in number[1:]:
        worked.append(steps.add(total, int(digit)))
        total += int(digit)
    return str(total), steps.chain(language, worked)


def _reverse(number: str, language: str) -> tuple[str, str]:
    last, left = _LAST_LEFT[language]
    parts = [f"{last}{number[i]}{left}{number[:i]}" for i in range(len(number) - 1, 0, -1)]
    return number[::-1], steps.GAP[language].join(parts)
