"""The atomic steps that worked solutions are chains of, written the same way in every family."""

from collections.abc import Sequence

_FIRST_THEN_SO = {
    "en": ("first ", " then ", " so "),
    "ko": ("먼저 ", " 다음 ", " 그래서 "),
    "zh": ("先", "再", "所以"),
}
YES = {"en": " yes", "ko": " 맞음", "zh": "对"}
NO = {"en": " no", "ko": " 아님", "zh": "错"}
GAP = {"en": " ", "ko": " ", "zh": ""}


def add(a: int, b: int) -> str:
    """`47+58=97+8=105`: tens first, then units, where there are both."""
    return f"{a}+{b}={a + b}" if _is_plain(b) else f"{a}+{b}={a + b - b % 10}+{b % 10}={a + b}"


def subtract(a: int, b: int) -> str:
    """`64-38=34-8=26`: tens first, then units, where there are both."""
    return f"{a}-{b}={a - b}" if _is_plain(b) else f"{a}-{b}={a - b + b % 10}-{b % 10}={a - b}"


def _is_plain(b: int) -> bool:
    """Whether a second operand is one step: a digit, or tens alone."""
    return b < 10 or b % 10 == 0


def signed(value: int, term: int) -> str:
    """The addition of a positive, or the subtraction of a negative term."""
    return add(value, term) if term >= 0 else subtract(value, -term)


def multiply(a: int, b: int) -> str:
    """`23*4=80+12=92`: tens and units apart; one of the two is a single digit or ends in 0."""
    if a < 10 < b:
        return multiply(b, a) if b % 10 else f"{a}*{b}={a * b}"
    if a < 10 or a % 10 == 0 or b % 10 == 0:
        return f"{a}*{b}={a * b}"
    return f"{a}*{b}={a // 10 * 10 * b}+{a % 10 * b}={a * b}"


def divide(a: int, b: int) -> str:
    """`21/3=7`, `119/7=10+49/7=17`: tens apart where the quotient has both; without remainder."""
    quotient = a // b
    tens = quotient // 10 * 10
    if tens == 0 or quotient == tens:
        return f"{a}/{b}={quotient}"
    return f"{a}/{b}={tens}+{a - tens * b}/{b}={quotient}"


def chain(language: str, steps: Sequence[str]) -> str:
    """Steps joined by "first … then … so …" in the language."""
    first, then, so = _FIRST_THEN_SO[language]
    if len(steps) == 1:
        return so.lstrip() + steps[0]
    return first + then.join(steps[:-1]) + so + steps[-1]


def so(language: str) -> str:
    """The word before a conclusion, with its spaces."""
    return _FIRST_THEN_SO[language][2]
