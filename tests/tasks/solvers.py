"""Independent solutions of generated problems, from their prompts alone and mostly by brute force."""

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from fractions import Fraction
from itertools import permutations, product

from clearseek.tasks.problem import Problem

MONDAY = date(2024, 1, 1)
WEEKDAYS = {
    "en": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "ko": ["월요일", "화요일", "수요일", "목요일", "금요일", "토요일", "일요일"],
    "zh": ["星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"],
}
UNITS = {
    1000: {"km": "m", "kg": "g", "L": "mL"},
    100: {"m": "cm"},
    10: {"cm": "mm"},
}
SECONDS = {
    "week": 604800, "주": 604800, "周": 604800,
    "day": 86400, "일": 86400, "며칠": 86400, "天": 86400,
    "hour": 3600, "시간": 3600, "小时": 3600,
    "minute": 60, "분": 60, "分钟": 60,
    "second": 1, "초": 1, "秒": 1,
}  # fmt: skip
MEASURES = {"km": 1_000_000, "m": 1000, "cm": 10, "mm": 1, "kg": 1000, "g": 1, "L": 1000, "mL": 1}
KNIGHT = {"en": ("knave", "knight"), "ko": ("건달", "기사"), "zh": ("骗子", "骑士")}


def value(expression: str) -> Fraction:
    """A sum of products and quotients, without brackets."""
    total = Fraction(0)
    for sign, term in re.findall(r"([+-]?)((?:\d+)(?:[*/]\d+)*)", expression):
        factors = re.findall(r"([*/]?)(\d+)", term)
        result = Fraction(1)
        for operator, number in factors:
            result = result / int(number) if operator == "/" else result * int(number)
        total += -result if sign == "-" else result
    return total


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def arithmetic(problem: Problem) -> str:
    return str(value(max(re.findall(r"[\d+*-]+", problem.prompt), key=len)))


def countdown(problem: Problem) -> tuple[list[int], int]:
    """The numbers and the target; whether they fit is for `reachable`."""
    listed = re.search(r"\d+(?:,\d+)+", problem.prompt)
    assert listed
    (target,) = numbers(problem.prompt.replace(listed[0], " "))
    return numbers(listed[0]), target


def reachable(available: list[Fraction]) -> Iterator[Fraction]:
    """Every value that the numbers give when all are used."""
    if len(available) == 1:
        yield available[0]
        return
    for a, b, *rest in permutations(available):
        for result in [a + b, a - b, a * b, *([a / b] if b else [])]:
            yield from reachable([result, *rest])


def sorting(problem: Problem) -> str:
    found = numbers(problem.prompt)
    down = re.search("largest|큰|从大|最大", problem.prompt) is not None
    if problem.verifier == "number":
        return str(max(found) if down else min(found))
    return ",".join(map(str, sorted(found, reverse=down)))


def digits(problem: Problem) -> str:
    number = max(re.findall(r"\d+", problem.prompt), key=len)
    if re.search("everse|거꾸로|倒", problem.prompt):
        return "".join(reversed(number))
    if re.search("digit|자리|数字", problem.prompt):
        return str(sum(map(int, number)))
    (digit,) = [found for found in re.findall(r"\d+", problem.prompt) if found != number]
    return str(list(number).count(digit))


def calendar(problem: Problem) -> str:
    (start,) = [i for i, day in enumerate(WEEKDAYS[problem.language]) if day in problem.prompt]
    days = int(value(re.findall(r"[\d+]+", problem.prompt)[0]))
    if re.search("before|전|天前", problem.prompt):
        days = -days
    end = MONDAY + timedelta(days=start + days)
    return WEEKDAYS[problem.language][end.weekday()]


def units(problem: Problem) -> str:
    """Amounts as seconds or the smallest measure; the unit asked for is the one without a number."""
    words = "|".join(sorted([*SECONDS, *MEASURES], key=len, reverse=True))
    sizes = SECONDS | MEASURES
    amounts = re.findall(rf"([+-]?) *(\d+) ?({words})", problem.prompt)
    asked = re.sub(rf"[+-]? *\d+ ?(?:{words})s?|How many|are|Convert|to ", " ", problem.prompt)
    unit = re.search(words, asked)
    assert unit
    total = sum((-1 if sign == "-" else 1) * int(number) * sizes[name] for sign, number, name in amounts)
    return str(Fraction(total, sizes[unit[0]]))


def algebra(problem: Problem) -> str:
    equation = re.search(r"[\dx+-]+=[\dx+-]+", problem.prompt)
    assert equation
    sides = equation[0].split("=")

    def side(text: str, x: int) -> Fraction:
        return value(re.sub(r"(\d*)x", lambda found: f"{found[1] or 1}*{x}", text))

    (solution,) = [x for x in range(150) if side(sides[0], x) == side(sides[1], x)]
    return str(solution)


CLAIMS: dict[str, list[tuple[str, Callable[[bool, bool], bool]]]] = {
    "en": [
        (r"(\w+) is a knight", lambda me, you: you),
        (r"(\w+) is a knave", lambda me, you: not you),
        (r"I am like (\w+)", lambda me, you: me is you),
        (r"I am not like (\w+)", lambda me, you: me is not you),
        (r"(\w+) and I are knaves", lambda me, you: not (me or you)),
        (r"(\w+) or I am a knave", lambda me, you: not (me and you)),
    ],
    "ko": [
        (r"(\w+)는 기사", lambda me, you: you),
        (r"나는 (\w+)와 같다", lambda me, you: me is you),
        (r"나는 (\w+)와 다르다", lambda me, you: me is not you),
        (r"(\w+)와 나는 건달", lambda me, you: not (me or you)),
        (r"(\w+)나 나는 건달", lambda me, you: not (me and you)),
        (r"(\w+)는 건달", lambda me, you: not you),
    ],
    "zh": [
        (r"我和(\w+)一样", lambda me, you: me is you),
        (r"我和(\w+)不同", lambda me, you: me is not you),
        (r"(\w+)和我都是骗子", lambda me, you: not (me or you)),
        (r"(\w+)或我是骗子", lambda me, you: not (me and you)),
        (r"(\w+)是骑士", lambda me, you: you),
        (r"(\w+)是骗子", lambda me, you: not you),
    ],
}  # fmt: skip


def logic(problem: Problem) -> str:
    spoken = re.findall(r"(\w+)[:：] ?([^.。]+)[.。]", problem.prompt)
    people = [speaker for speaker, _ in spoken]
    told = []
    for speaker, words in spoken:
        fits = [(re.fullmatch(pattern, words), claim) for pattern, claim in CLAIMS[problem.language]]
        found, claim = next((found, claim) for found, claim in fits if found)
        told.append((people.index(speaker), people.index(found[1]), claim))
    (only,) = [
        kinds
        for kinds in product([True, False], repeat=len(people))
        if all(claim(kinds[me], kinds[you]) == kinds[me] for me, you, claim in told)
    ]
    return ",".join(KNIGHT[problem.language][kind] for kind in only)


def sequences(problem: Problem) -> str:
    """What every rule that fits the terms says comes next; they must agree."""
    a, b, c, d = numbers(problem.prompt)
    steps = [b - a, c - b, d - c]
    said = set()
    if steps[1] - steps[0] == steps[2] - steps[1]:
        said.add(d + 2 * steps[2] - steps[1])
    if b * b == a * c and c * c == b * d:
        said.add(d * d // c)
    if a + b == c and b + c == d:
        said.add(c + d)
    (next_term,) = said
    return str(next_term)


def word_problems(problem: Problem) -> str:
    boxes = re.search(r"(\d+) boxes of (\d+)|(\d+)개씩 (\d+)상자|有(\d+)盒\D+(\d+)个", problem.prompt)
    if boxes:
        first, second = [int(number) for number in boxes.groups() if number]
        total, rest = first * second, problem.prompt[boxes.end() :]
    else:
        start = re.search(r"\d+", problem.prompt)
        assert start
        total, rest = int(start[0]), problem.prompt[start.end() :]
    gains = re.findall(r"(?:gets|finds|得到|找到) ?(\d+)|(\d+)개를 (?:얻|찾)", rest)
    losses = re.findall(r"(?:gives|loses|给出|丢掉) ?(\d+)|(\d+)개를 (?:주|잃)", rest)
    total += sum(int(a or b) for a, b in gains) - sum(int(a or b) for a, b in losses)
    assert len(gains) + len(losses) == len(numbers(rest))
    return str(total)


SOLVERS: dict[str, Callable[[Problem], str]] = {
    "arithmetic": arithmetic,
    "sorting": sorting,
    "digits": digits,
    "calendar": calendar,
    "units": units,
    "algebra": algebra,
    "logic": logic,
    "sequences": sequences,
    "word_problems": word_problems,
}
