"""Which language a text is in, measured by its letters."""

import re

_SCRIPTS = {"ko": "가-힣ㄱ-ㅎㅏ-ㅣ", "zh": "㐀-䶿一-鿿", "en": "A-Za-zÀ-ÖØ-öø-ɏ"}
_WORD = re.compile(
    "|".join(f"(?P<{language}>[{letters}]+)" for language, letters in _SCRIPTS.items())
    + r"|(?P<other>[^\W\d_])"
)
_NEUTRAL = re.compile(
    r"\\[A-Za-z]+"  # LaTeX commands
    r"|(?<![A-Za-z])(?:[A-Za-z]|[kcm]m|kg|mg|mL|ml|kWh|GB|MB|KB)(?![A-Za-z])"  # variables, symbols of units
)


def language_consistency(text: str, language: str) -> float | None:
    """The share of words in the language, None where the text has no words.

    Digits, symbols, single Latin letters, unit symbols and LaTeX commands count as no words. Chinese is
    counted at two characters a word, since it is written without spaces. Latin script counts as English.
    """
    counts = _count(text)
    total = sum(counts.values())
    return counts[language] / total if total else None


def detect(text: str) -> str:
    """The language of most of the words; English where there are none."""
    counts = _count(text)
    return max(("en", "ko", "zh"), key=lambda language: counts[language])


def _count(text: str) -> dict[str, int]:
    counts = dict.fromkeys([*_SCRIPTS, "other"], 0)
    for found in _WORD.finditer(_NEUTRAL.sub(" ", text)):
        script = found.lastgroup or "other"
        counts[script] += (len(found[0]) + 1) // 2 if script == "zh" else 1
    return counts
