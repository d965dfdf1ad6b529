"""Which languages texts are in, counted by script as `tasks.language` does, for millions of words at once."""

from collections.abc import Sequence

import numpy as np

from clearseek.data.words import DIGIT, HAN, HANGUL, KANA, LATIN, NONE, OTHER, classes_of, joined, run_starts

LANGUAGES = ("en", "ko", "zh", "other")
_CLASSES = max(NONE, LATIN, HANGUL, HAN, KANA, OTHER, DIGIT) + 1
_SCRIPTS = ((LATIN,), (HANGUL,), (HAN,), (KANA, OTHER))


def language_words(texts: Sequence[str]) -> np.ndarray:
    """int64 [texts, 4]: words in Latin, Hangul, Chinese and other letters.

    Chinese and kana are counted at two characters a word, and a single Latin letter as no word (a variable, a unit).
    Script is all that is looked at: French counts as English, and Japanese is part Chinese, part other.
    """
    counts = np.zeros((len(texts), len(LANGUAGES)), np.int64)
    for part in joined(texts):
        classes = classes_of(part.codes)
        classes[classes == DIGIT] = NONE
        places = np.flatnonzero(run_starts(classes, part))
        lengths = np.diff(np.append(places, len(classes)))
        kinds = classes[places]
        words = np.where((kinds == HAN) | (kinds == KANA), (lengths + 1) // 2, 1) * ~(
            (kinds == LATIN) & (lengths == 1)
        )
        owner = np.repeat(
            np.arange(num_texts := len(part.starts) - 1), np.diff(np.searchsorted(places, part.starts))
        )
        by_class = np.bincount(owner * _CLASSES + kinds, words, num_texts * _CLASSES).reshape(
            num_texts, _CLASSES
        )
        for column, scripts in enumerate(_SCRIPTS):
            counts[part.first : part.first + num_texts, column] = by_class[:, scripts].sum(1)
    return counts


def main_languages(words: np.ndarray) -> list[str]:
    """Every text's language, in which most of its words are, from `language_words`; "none" where it has no word."""
    best = np.where(words.any(axis=1), np.argmax(words, axis=1), len(LANGUAGES))
    return [(*LANGUAGES, "none")[column] for column in best.tolist()]


def language_counts(words: np.ndarray) -> dict[str, dict[str, int]]:
    """For a record: texts and words by language; languages without either are left out."""
    mains = main_languages(words)
    words_by = dict(zip(LANGUAGES, words.sum(axis=0).tolist(), strict=True)) | {"none": 0}
    counts = {name: {"documents": mains.count(name), "words": number} for name, number in words_by.items()}
    return {name: pair for name, pair in counts.items() if any(pair.values())}
