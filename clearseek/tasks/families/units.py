"""Change of units: length, mass, volume and time, alone, compound, and with a sum or difference."""

from random import Random

from clearseek.tasks.families import steps
from clearseek.tasks.families.draw import between, pick
from clearseek.tasks.problem import Problem

NAME = "units"
LEVELS = 3

_WORDS = {
    "en": {"week": "weeks", "day": "days", "hour": "hours", "minute": "minutes", "second": "seconds"},
    "ko": {"week": "주", "day": "일", "hour": "시간", "minute": "분", "second": "초"},
    "zh": {"week": "周", "day": "天", "hour": "小时", "minute": "分钟", "second": "秒"},
}
_PAIRS = (
    ("km", "m", 1000), ("m", "cm", 100), ("cm", "mm", 10), ("kg", "g", 1000), ("L", "mL", 1000),
    ("hour", "minute", 60), ("minute", "second", 60), ("day", "hour", 24), ("week", "day", 7),
)  # fmt: skip
_PROMPTS = {
    "en": ("How many {unit} are {amount}?", "Convert {amount} to {unit}."),
    "ko": ("{amount}이면 {unit}?", "{unit}: {amount}"),
    "zh": ("{amount}是多少{unit}？", "多少{unit}：{amount}"),
}


def generate(rng: Random, level: int, language: str) -> Problem:
    """One unit either way; two units into the smaller; two units plus or minus some of the smaller."""
    big, small, factor = pick(rng, _PAIRS)
    template = pick(rng, _PROMPTS[language])
    a = between(rng, 2, 99 if factor % 10 == 0 and factor != 60 and level == 1 else 9)
    up = level > 1 or rng.random() < 0.6
    fact = _amount(1, big, language) + "=" + _amount(factor, small, language)
    if not up:
        prompt = template.format(amount=_amount(a * factor, small, language), unit=_asked(big, language))
        solution = steps.chain(language, [fact, steps.divide(a * factor, factor)])
        return Problem(NAME, language, level, prompt, str(a), "number", solution)
    amount, value, worked = _amount(a, big, language), a * factor, [fact, steps.multiply(a, factor)]
    if level > 1:
        b = between(rng, 1, min(factor, 100) - 1)
        amount += steps.GAP[language] + _amount(b, small, language)
        worked.append(steps.add(value, b))
        value += b
    if level == 3:
        c = between(rng, 2, min(value - 1, 99))
        sign = pick(rng, (1, -1))
        gap = steps.GAP[language]
        amount += gap + ("+" if sign > 0 else "-") + gap + _amount(c, small, language)
        worked.append(steps.signed(value, sign * c))
        value += sign * c
    prompt = template.format(amount=amount, unit=_asked(small, language))
    return Problem(NAME, language, level, prompt, str(value), "number", steps.chain(language, worked))


def _unit(unit: str, language: str) -> str:
    return _WORDS[language].get(unit, unit)


def _asked(unit: str, language: str) -> str:
    """The unit as it is asked for; Korean has a word of its own for "how many days"."""
    if language == "ko":
        return "며칠" if unit == "day" else f"몇 {_unit(unit, language)}"
    return _unit(unit, language)


def _amount(number: int, unit: str, language: str) -> str:
    """`5 hours`, `5시간`, `5小时`; a single one in English has no plural."""
    if language == "en":
        return f"{number} {unit if number == 1 else _unit(unit, language)}"
    return f"{number}{_unit(unit, language)}"
