"""Languages by script, against the count that judges answers."""

import pytest

from clearseek.data.languages import language_counts, language_words, main_languages
from clearseek.tasks.language import detect, language_consistency

TEXTS = {
    "en": "The knight never lies, and the knave always does.",
    "ko": "기사는 거짓말을 하지 않고 사기꾼은 늘 거짓말을 합니다.",
    "zh": "骑士从不说谎，骗子总是说谎。",
}


@pytest.mark.parametrize("language", TEXTS)
def test_plain_texts_are_counted_as_answers_are(language: str) -> None:
    mixed = TEXTS[language] + " 한국어 둘 中文四字 word another"
    words = dict(zip(("en", "ko", "zh", "other"), language_words([mixed])[0].tolist(), strict=True))
    for other in TEXTS:
        assert words[other] / sum(words.values()) == language_consistency(mixed, other)
    assert main_languages(language_words([TEXTS[language]])) == [language] == [detect(TEXTS[language])]


def test_variables_digits_and_signs_are_no_words() -> None:
    assert language_words(["x + 1 = 2, y", "", "12.5 !?"]).sum() == 0
    assert main_languages(language_words(["x = 1", "Привет, мир", "ひらがなをかく日本"])) == [
        "none",
        "other",
        "other",
    ]


def test_counts_for_a_record_name_only_what_is_there() -> None:
    counts = language_counts(language_words([TEXTS["ko"], "1 + 1", TEXTS["ko"]]))
    assert counts == {"ko": {"documents": 2, "words": 16}, "none": {"documents": 1, "words": 0}}
    assert language_counts(language_words([])) == {}
