"""What is in a source, counted: for the `source` record of a run, and for whoever reads it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clearseek.data.contamination import Contamination, contamination
from clearseek.data.duplicates import exact_repeats, near_repeats
from clearseek.data.filters import mask_texts
from clearseek.data.languages import language_counts, language_words
from clearseek.data.personal import find_personal_data
from clearseek.data.words import Words, words_of

_MOST_SAMPLES = 10
_SAMPLE_CHARACTERS = 200


def census(texts: Sequence[str], evaluations: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Rows, bytes, words, languages, repeats, personal data by rule, and what there is of each evaluation's items."""
    words, exact = words_of(texts), exact_repeats(texts)
    asked = _asked_once(evaluations)
    return {
        "rows": len(texts),
        "bytes": sum(_num_bytes(text) for text in texts),
        "words": len(words.hashes),
        "languages": language_counts(language_words(texts)),
        "duplicates": {"exact": int(exact.sum()), "near": int((near_repeats(words) & ~exact).sum())},
        "personal_data": dict(sorted(Counter(one.rule for one in find_personal_data(texts)).items())),
        "contamination": {name: _overlap(items, words) for name, items in asked.items()},
    }


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _asked_once(evaluations: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Every item under the first evaluation that asks it, so that counts can be added up."""
    seen: set[str] = set()
    asked = {}
    for name, items in evaluations.items():
        asked[name] = list(dict.fromkeys(item for item in items if item not in seen))
        seen.update(asked[name])
    return asked


def _overlap(items: Sequence[str], words: Words) -> dict[str, Any]:
    """One evaluation's items in these texts, with the worst to read (personal data masked)."""
    found = contamination(items, words)
    return {
        "items": len(items),
        "whole": int(found.whole.sum()),
        "overlapping": int((found.overlapping | found.whole).sum()),
        "longest_words": int(found.longest.max(initial=0)),
        "too_short": found.too_short,
        "rows": int(found.touched.sum()),
        "samples": [_sample(number, items, words, found) for number in _worst(found)],
    }


def _worst(found: Contamination) -> list[int]:
    touched = np.flatnonzero(found.whole | found.overlapping)
    order = np.lexsort((-found.longest[touched], ~found.whole[touched]))
    return [int(number) for number in touched[order][:_MOST_SAMPLES]]


def _sample(number: int, items: Sequence[str], words: Words, found: Contamination) -> dict[str, Any]:
    row = int(found.found_in[number])
    (text,), _ = mask_texts([words.texts[row][:_SAMPLE_CHARACTERS]])
    return {
        "item": items[number][:_SAMPLE_CHARACTERS],
        "whole": bool(found.whole[number]),
        "words": int(found.longest[number]),
        "row": row,
        "text": text,
    }
