"""Where words begin and end, on bytes: what a span of text may begin and end with, in any script.

A run of letters and digits is a word. Of scripts that are written without spaces, and of Korean, whose particles
join what they follow, every character is one; so is every sign. A combining mark belongs to what stands before it.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np

from clearseek.data.words import classified

SPACE, LETTER, SINGLE, MARK = range(4)
_SINGLES = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1100, 0x11FF), (0x1780, 0x17FF), (0x2E80, 0x31FF), (0x3400, 0xA4CF),
    (0xA960, 0xA97F), (0xAC00, 0xD7FF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x1B000, 0x1B16F), (0x20000, 0x3FFFF),
)  # fmt: skip  # Thai and Lao, Burmese, Hangul, Khmer, Han with kana and bopomofo


@dataclass(frozen=True)
class Words:
    """A text's words: starts and ends int64 [words], ends past the last byte; every byte offset is of UTF-8."""

    text: bytes
    starts: np.ndarray
    ends: np.ndarray


def words_of(text: str) -> Words:
    """The words of a text. Half a surrogate pair counts as one sign."""
    content = text.encode("utf-8", "replace")
    points = np.frombuffer(content.decode("utf-8").encode("utf-32-le"), np.uint32)
    raw = np.frombuffer(content, np.uint8)
    places = np.append(np.flatnonzero((raw & 0xC0) != 0x80), len(raw))
    begins, ends = _boundaries(classified(points, _class_of))
    return Words(content, places[:-1][begins], places[1:][ends])


def _boundaries(kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each character begins a word, and whether it ends one."""
    is_mark = kinds == MARK
    bearer = np.maximum.accumulate(np.where(is_mark, 0, np.arange(len(kinds))))
    base = kinds[bearer] if len(kinds) else kinds
    before = np.concatenate([[SPACE], base[:-1]]) if len(kinds) else kinds
    after = np.append(kinds[1:], SPACE) if len(kinds) else kinds
    begins = (kinds == SINGLE) | ((kinds == LETTER) & (before != LETTER))
    ends = (after != MARK) & ((base == SINGLE) | ((base == LETTER) & (after != LETTER)))
    return begins, ends


@cache
def _class_of(point: int) -> int:
    character = chr(point)
    category = unicodedata.category(character)
    if character.isspace() or category == "Cc":
        return SPACE
    if category[0] == "M":
        return MARK
    is_word = (category[0] in "LN" or character == "_") and not any(a <= point <= b for a, b in _SINGLES)
    return LETTER if is_word else SINGLE
