"""Short stories about things gained and given away."""

from random import Random

from clearseek.tasks.families import steps
from clearseek.tasks.families.draw import between, pick, signed_terms
from clearseek.tasks.families.names import PEOPLE
from clearseek.tasks.problem import Problem

NAME = "word_problems"
LEVELS = 3

_THINGS = {"en": ("apples", "coins", "balls"), "ko": ("사과", "동전", "공"), "zh": ("苹果", "硬币", "球")}
_HAS = {"en": "{name} has {a} {thing}", "ko": "{name}는 {thing} {a}개가 있고", "zh": "{name}有{a}个{thing}"}
_BOXES = {
    "en": "{name} has {b} boxes of {a} {thing}",
    "ko": "{name}는 {thing} {a}개씩 {b}상자가 있고",
    "zh": "{name}有{b}盒{thing}每盒{a}个",
}
_GETS = {
    "en": (", gets {} more", ", finds {} more"),
    "ko": (" {}개를 얻고", " {}개를 찾고"),
    "zh": ("，得到{}个", "，找到{}个"),
}
_GIVES = {
    "en": (", gives {} away", ", loses {}"),
    "ko": (" {}개를 주고", " {}개를 잃고"),
    "zh": ("，给出{}个", "，丢掉{}个"),
}
_ASK = {"en": ". How many now?", "ko": " 지금은 몇 개?", "zh": "，现在有几个？"}


def generate(rng: Random, level: int, language: str) -> Problem:
    """One change; two; boxes of things and two changes."""
    name, thing = pick(rng, PEOPLE[language]), pick(rng, _THINGS[language])
    worked: list[str] = []
    if level == 3:
        a, b = between(rng, 11, 33), between(rng, 2, 6)
        story, value = _BOXES[language].format(name=name, thing=thing, a=a, b=b), a * b
        worked.append(steps.multiply(a, b))
    else:
        value = between(rng, 10, 99)
        story = _HAS[language].format(name=name, thing=thing, a=value)
    for term in signed_terms(rng, value, min(level, 2)):
        story += pick(rng, (_GETS if term > 0 else _GIVES)[language]).format(abs(term))
        worked.append(steps.signed(value, term))
        value += term
    solution = steps.chain(language, worked)
    return Problem(NAME, language, level, story + _ASK[language], str(value), "number", solution)
