"""Put numbers in order, or find the largest or smallest: repeatedly name the extreme of what is left."""

from random import Random

from clearseek.tasks.families import steps
from clearseek.tasks.families.draw import pick
from clearseek.tasks.problem import Problem

NAME = "sorting"
LEVELS = 3

_SORT_UP = {
    "en": ("Sort {}, smallest first.", "Order {} from the smallest."),
    "ko": ("작은 수부터 정렬: {}", "{} 작은 수부터 쓰시오."),
    "zh": ("把{}从小到大排列。", "从小到大写出{}。"),
}
_SORT_DOWN = {
    "en": ("Sort {}, largest first.", "Order {} from the largest."),
    "ko": ("큰 수부터 정렬: {}", "{} 큰 수부터 쓰시오."),
    "zh": ("把{}从大到小排列。", "从大到小写出{}。"),
}
_SMALLEST = {
    "en": ("Which is the smallest: {}?", "{}: the smallest?"),
    "ko": ("{} 중 가장 작은 수는?", "가장 작은 수는? {}"),
    "zh": ("{}中最小的是？", "最小的是？{}"),
}
_LARGEST = {
    "en": ("Which is the largest: {}?", "{}: the largest?"),
    "ko": ("{} 중 가장 큰 수는?", "가장 큰 수는? {}"),
    "zh": ("{}中最大的是？", "最大的是？{}"),
}
_EXTREME_LEFT = {
    "en": (("smallest ", "largest "), " left "),
    "ko": (("최소 ", "최대 "), " 남음 "),
    "zh": (("最小", "最大"), "剩"),
}


def generate(rng: Random, level: int, language: str) -> Problem:
    """Three numbers at level 1, five at level 3; one in three asks only for the extreme."""
    numbers = rng.sample(range(10, 100), level + 2)
    down, only_extreme = rng.random() < 0.5, rng.random() < 1 / 3
    if only_extreme:
        template = pick(rng, (_LARGEST if down else _SMALLEST)[language])
        answer, solution = _extreme(numbers, down, language)
        verifier = "number"
    else:
        template = pick(rng, (_SORT_DOWN if down else _SORT_UP)[language])
        answer, solution = _sorted(numbers, down, language)
        verifier = "exact"
    return Problem(NAME, language, level, template.format(_list(numbers)), answer, verifier, solution)


def _list(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


def _sorted(numbers: list[int], down: bool, language: str) -> tuple[str, str]:
    words, left_word = _EXTREME_LEFT[language]
    left, parts = list(numbers), []
    ordered = sorted(numbers, reverse=down)
    for number in ordered[:-1]:
        left.remove(number)
        parts.append(f"{words[down]}{number}{left_word}{_list(left)}")
    return _list(ordered), steps.GAP[language].join(parts)


def _extreme(numbers: list[int], down: bool, language: str) -> tuple[str, str]:
    best, worked = numbers[0], []
    for number in numbers[1:]:
        worked.append(f"{best}{'<' if best < number else '>'}{number}")
        best = max(best, number) if down else min(best, number)
    return str(best), steps.chain(language, [*worked, str(best)])
