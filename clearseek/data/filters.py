"""What a recipe's `filters` leave out of a source: pure decisions over texts, and the hash of what decided."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby

import numpy as np

from clearseek.config.sources import Filters
from clearseek.data.contamination import contamination
from clearseek.data.duplicates import exact_repeats, near_repeats
from clearseek.data.languages import language_words, main_languages
from clearseek.data.personal import find_personal_data, mask
from clearseek.data.words import words_of

REMOVED = "removed"  # the rule whose documents leave nothing in the run
Rule = Callable[[Sequence[str]], np.ndarray]  # texts → bool [texts]: which to leave out


@dataclass(frozen=True)
class Outcome:
    """`kept` are the numbers of texts that stay, in order; `dropped` those that each rule left out, by its name."""

    kept: list[int]
    dropped: dict[str, list[int]]


def filter_texts(texts: Sequence[str], filters: Filters, items: Sequence[str]) -> Outcome:
    """Apply every rule that is set, each to what those before it left; `items` are those of the evaluations."""
    kept = np.arange(len(texts))
    dropped: dict[str, list[int]] = {}
    for name, rule in _rules(filters, items):
        bad = rule([texts[number] for number in kept.tolist()])
        dropped[name] = kept[bad].tolist()
        kept = kept[~bad]
    return Outcome(kept.tolist(), dropped)


def _rules(filters: Filters, items: Sequence[str]) -> Iterator[tuple[str, Rule]]:
    if filters.removed:
        yield REMOVED, lambda texts: np.isin([_sha256(text) for text in texts], filters.removed)
    if filters.min_chars:
        yield "min_chars", lambda texts: _lengths(texts) < filters.min_chars
    if filters.max_chars:
        yield "max_chars", lambda texts: _lengths(texts) > filters.max_chars
    if (chosen := filters.languages) is not None:
        yield "languages", lambda texts: ~np.isin(main_languages(language_words(texts)), chosen)
    if filters.duplicates:
        yield "duplicates", exact_repeats
    if filters.duplicates == "near":
        yield "near_duplicates", lambda texts: near_repeats(words_of(texts))
    if filters.contamination:
        yield "contamination", lambda texts: contamination(items, words_of(texts)).touched
    if filters.personal_data == "drop":
        yield "personal_data", _with_personal_data


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _lengths(texts: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(len, texts), np.int64, len(texts))


def _with_personal_data(texts: Sequence[str]) -> np.ndarray:
    found = np.zeros(len(texts), bool)
    found[[one.text for one in find_personal_data(texts)]] = True
    return found


def mask_texts(texts: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The texts with personal data replaced by its rule's name in brackets, and how often by rule."""
    masked, found = list(texts), find_personal_data(texts)
    for number, finds in groupby(found, key=lambda one: one.text):
        masked[number] = mask(texts[number], list(finds))
    return masked, dict(sorted(Counter(one.rule for one in found).items()))


def code_sha256() -> str:
    """sha256 (hex) over this room's files, by name: what decided."""
    digest = hashlib.sha256()
    files = (file for file in resources.files(__package__).iterdir() if file.name.endswith(".py"))
    for file in sorted(files, key=lambda file: file.name):
        digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()
