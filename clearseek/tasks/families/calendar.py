"""The day of the week some days later or earlier: take whole weeks away, then count the days that remain."""

from random import Random

from clearseek.tasks.families import steps
from clearseek.tasks.families.draw import between, pick
from clearseek.tasks.families.names import PEOPLE
from clearseek.tasks.problem import Problem

NAME = "calendar"
LEVELS = 3

WEEKDAYS = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "ko": ("월요일", "화요일", "수요일", "목요일", "금요일", "토요일", "일요일"),
    "zh": ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"),
}
_LATER = {
    "en": (
        "Today is {day}. What day is it {n} days later?",
        "{name} comes {n} days after {day}. What day is it?",
    ),
    "ko": ("오늘은 {day}. {n}일 뒤는 무슨 요일?", "{name}는 {day}의 {n}일 뒤에 온다. 무슨 요일?"),
    "zh": ("今天是{day}，{n}天后是星期几？", "{name}在{day}的{n}天后来，是星期几？"),
}
_EARLIER = {
    "en": (
        "Today is {day}. What day was it {n} days before?",
        "{name} came {n} days before {day}. What day was it?",
    ),
    "ko": ("오늘은 {day}. {n}일 전은 무슨 요일?", "{name}는 {day}의 {n}일 전에 왔다. 무슨 요일?"),
    "zh": ("今天是{day}，{n}天前是星期几？", "{name}在{day}的{n}天前来，是星期几？"),
}


def generate(rng: Random, level: int, language: str) -> Problem:
    """Up to 13 days; up to 69; a sum of two numbers of days."""
    direction = 1 if rng.random() < 0.5 else -1
    template = pick(rng, (_LATER if direction > 0 else _EARLIER)[language])
    name = pick(rng, PEOPLE[language])
    start = between(rng, 0, 6)
    worked: list[str] = []
    if level == 3:
        a, b = between(rng, 10, 49), between(rng, 10, 49)
        days, text = a + b, f"{a}+{b}"
        worked.append(steps.add(a, b))
    else:
        days = between(rng, 2, 13) if level == 1 else between(rng, 14, 69)
        text = str(days)
    worked += _without_weeks(days)
    worked.append(_count(start, direction, days % 7, language))
    names = WEEKDAYS[language]
    prompt = template.format(day=names[start], n=text, name=name)
    answer = names[(start + direction * days) % 7]
    return Problem(NAME, language, level, prompt, answer, "exact", steps.chain(language, worked))


def _without_weeks(days: int) -> list[str]:
    weeks = days // 7
    if weeks == 0:
        return []
    whole = [steps.multiply(7, weeks)] if weeks > 1 else []
    return [*whole, steps.subtract(days, 7 * weeks)]


def _count(start: int, direction: int, days: int, language: str) -> str:
    names, gap = WEEKDAYS[language], steps.GAP[language]
    counted = [f"{i}{gap}{names[(start + direction * i) % 7]}" for i in range(days + 1)]
    return gap.join(counted)
