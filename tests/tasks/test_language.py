"""Language consistency: what counts as a word, and of which language."""

import pytest

from clearseek.tasks.language import detect, language_consistency


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("first 23+45=68 so 68-12=56", "en", 1.0),
        ("먼저 23+45=68 그래서 68-12=56", "ko", 1.0),
        ("先23+45=68所以68-12=56", "zh", 1.0),
        ("first 23+45=68 그래서 68-12=56", "en", 0.5),
        ("first 23+45=68 그래서 68-12=56", "ko", 0.5),
        ("first 23+45=68 그래서 68-12=56", "zh", 0.0),
        ("23+45=68", "ko", None),
        ("", "en", None),
        ("3x+5=26, 34m=3400cm, 5 kg", "ko", None),
        ("\\frac{1}{2} 은 절반", "ko", 1.0),
        ("мир", "en", 0.0),
        ("今天 today", "zh", 0.5),
    ],
)
def test_share_of_words(text: str, language: str, share: float | None) -> None:
    assert language_consistency(text, language) == share


def test_two_chinese_characters_are_a_word() -> None:
    assert language_consistency("今天是星期三 today is", "zh") == 3 / 5


@pytest.mark.parametrize(
    ("text", "language"),
    [("What day is it?", "en"), ("오늘은 무슨 요일? ok", "ko"), ("今天是星期几？", "zh"), ("1+1", "en")],
)
def test_detection(text: str, language: str) -> None:
    assert detect(text) == language
