"""Texts as hashed words, end to end: what finding repeats and evaluation items works on.

A word is a run of letters and digits in lower case; a Chinese character is a word by itself, since Chinese is
written without spaces. What stands between words counts only in `Words.between`.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

NONE, LATIN, HANGUL, HAN, KANA, OTHER, DIGIT = range(7)
_KINDS = np.array(
    [NONE, *[OTHER] * 6], np.uint8
)  # of every class: where one ends and another begins, so does a word
_KINDS[HAN] = HAN
_BMP = 0x10000
_CHARACTERS_AT_A_TIME = 1 << 18  # so that what is computed of them stays in a core's cache
_WORDS_AT_A_TIME = 1 << 15
_SIGNS = set("+-−*/×÷=^.,")
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing


_OF_LETTERS = {
    LATIN: ((0x41, 0x24F),),
    HANGUL: ((0x1100, 0x11FF), (0x3131, 0x318E), (0xAC00, 0xD7A3)),
    KANA: ((0x3041, 0x3096), (0x30A1, 0x30FA)),
}
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x3005, 0x3007), (0x20000, 0x3FFFF))


def classes_of(codes: np.ndarray) -> np.ndarray:
    """The class (NONE, LATIN, HANGUL, HAN, KANA, OTHER, DIGIT) of every code point, uint8 [characters]."""
    return classified(codes, _class_of)


def classified(codes: np.ndarray, class_of: Callable[[int], int]) -> np.ndarray:
    """A class for every code point, uint8 [characters]; asked for once for each that occurs."""
    table = np.zeros(int(codes.max(initial=0)) + 1, np.uint8)
    present = np.flatnonzero(np.bincount(codes))
    table[present] = [class_of(code) for code in present.tolist()]
    return table[codes]


@cache
def _class_of(code: int) -> int:
    """Of one code point. Beyond the BMP nothing but ideographs is a word here."""
    if _is_in(code, _HAN):
        return HAN
    kind = unicodedata.category(chr(code))[0] if code < _BMP else ""
    if kind not in ("L", "M"):
        return DIGIT if kind == "N" else NONE
    return next((name for name, ranges in _OF_LETTERS.items() if _is_in(code, ranges)), OTHER)


def _is_in(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)


@dataclass(frozen=True)
class Joined:
    """Some texts end to end: `codes` uint32 [characters], `starts` int64 [texts + 1], `first` the first's number."""

    codes: np.ndarray
    starts: np.ndarray
    first: int

    @property
    def text_of_character(self) -> np.ndarray:
        """int64 [characters]: which of these texts a character belongs to, from 0."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def joined(texts: Sequence[str], characters: int = _CHARACTERS_AT_A_TIME) -> Iterator[Joined]:
    """All texts in parts of about so many characters."""
    for first, last in parts_of(texts, characters):
        part = texts[first:last]
        codes = np.frombuffer("".join(part).encode("utf-32-le", "surrogatepass"), np.uint32)
        yield Joined(codes, np.cumsum([0, *map(len, part)]), first)


def parts_of(texts: Sequence[str], characters: int = _CHARACTERS_AT_A_TIME) -> Iterator[tuple[int, int]]:
    """First and end of parts of about so many characters, so that memory stays bounded and fast."""
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
    first, begin = 0, 0
    while first < len(texts):
        last = min(int(np.searchsorted(ends, begin + characters)) + 1, len(texts))
        yield first, last
        first, begin = last, int(ends[last - 1])


def run_starts(classes: np.ndarray, texts: Joined) -> np.ndarray:
    """bool [characters]: where a run of one class begins; a text's first character begins one."""
    begins = np.ones(len(classes), bool)
    begins[1:] = classes[1:] != classes[:-1]
    inner = texts.starts[:-1]
    begins[inner[inner < len(begins)]] = True
    return begins


@dataclass(frozen=True)
class Words:
    """The words of texts: `hashes` uint64 [words], `offsets` int64 [texts + 1], and where each stands in its text."""

    texts: Sequence[str]
    hashes: np.ndarray
    offsets: np.ndarray
    begins: np.ndarray
    ends: np.ndarray

    @cached_property
    def text_of_word(self) -> np.ndarray:
        """int64 [words]: which text a word belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def rows(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Where `length` words in a row belong to one text, int64, and their hashes; computed once."""
        if length not in self._rows:
            places = whole_windows(self, length)
            self._rows[length] = places, windows(self.hashes, length)[places]
        return self._rows[length]

    @cached_property
    def _rows(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {}

    def between(self, place: int, count: int) -> str:
        """`count` words with what is between them, without white space, in lower case."""
        text = self.texts[self._text_at(place)]
        return "".join(text[self.begins[place] : self.ends[place + count - 1]].split()).lower()

    def rest_of_line(self, place: int) -> str:
        """What follows a word up to the end of its line, without white space, in lower case."""
        text, end = self.texts[self._text_at(place)], self.ends[place]
        line_end = text.find("\n", end)
        return "".join(text[end : line_end if line_end >= 0 else len(text)].split()).lower()

    def sign_before(self, place: int) -> str:
        """The sign of arithmetic right before a word, "" where there is none."""
        before = self.texts[self._text_at(place)][: self.begins[place]][-1:]
        return before if before in _SIGNS else ""

    def _text_at(self, place: int) -> int:
        return int(np.searchsorted(self.offsets, place, "right")) - 1


def words_of(texts: Sequence[str]) -> Words:
    """Every word of every text, hashed."""
    parts = [_words(part) for part in joined(_lower(texts))]
    empty = np.empty(0, np.int64)
    counts = np.concatenate([part[0] for part in parts]) if parts else empty
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    hashes, begins, ends = (
        np.concatenate([part[i] for part in parts]) if parts else empty.astype(kind)
        for i, kind in ((1, np.uint64), (2, np.int32), (3, np.int32))
    )
    return Words(texts, hashes, offsets, begins, ends)


def _lower(texts: Sequence[str]) -> list[str]:
    """In lower case, character by character where a text would change its length, so that places stay."""
    small = list(map(str.lower, texts))
    others = map(int.__ne__, map(len, small), map(len, texts))
    for number in [number for number, is_other in enumerate(others) if is_other]:
        small[number] = "".join(one.lower()[0] for one in texts[number])
    return small


def _words(part: Joined) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Words in each text, and every word's hash, begin and end within its text."""
    kinds = _KINDS[classes_of(part.codes)]
    begins = (run_starts(kinds, part) | (kinds == HAN)) & (kinds != NONE)
    places = np.flatnonzero(begins)
    counts = np.diff(np.searchsorted(places, part.starts))
    if not len(places):
        return counts, np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.int32)
    inside = np.flatnonzero(kinds != NONE)
    first = np.flatnonzero(begins[inside])  # of every word, among the characters of words
    lengths = np.diff(first, append=len(inside))
    values = _hashes_of(part.codes[inside]) * _powers(np.arange(len(inside)) - np.repeat(first, lengths))
    hashes = mixed(np.add.reduceat(values, first))
    begins_in_text = places - np.repeat(part.starts[:-1], counts)
    return counts, hashes, begins_in_text.astype(np.int32), (begins_in_text + lengths).astype(np.int32)


@cache
def _character_hashes() -> np.ndarray:
    """uint64 [65536]: a hash of every character of the BMP."""
    return mixed(np.arange(_BMP, dtype=np.uint64))


def _hashes_of(codes: np.ndarray) -> np.ndarray:
    """uint64 [characters]: a hash of every code point; of most of them by table."""
    hashes = _character_hashes()[np.minimum(codes, _BMP - 1)]
    beyond = np.flatnonzero(codes >= _BMP)
    hashes[beyond] = mixed(codes[beyond].astype(np.uint64))
    return hashes


def _powers(exponents: np.ndarray) -> np.ndarray:
    """The base to every exponent, modulo 2^64."""
    powers = np.full(int(exponents.max(initial=0)) + 1, BASE, np.uint64)
    powers[0] = 1
    return np.cumprod(powers)[exponents]


def mixed(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: every bit of the output hangs on every bit of the input."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def windows(hashes: np.ndarray, length: int) -> np.ndarray:
    """uint64 [words − length + 1]: a hash of every `length` words in a row, whatever texts they belong to.

    Two different rows of words have the same hash once in 2^64 times, which is neglected.
    """
    found = np.empty(max(len(hashes) - length + 1, 0), np.uint64)
    for first in range(0, len(found), _WORDS_AT_A_TIME):
        last = min(first + _WORDS_AT_A_TIME, len(found))
        found[first:last] = _windows(hashes[first : last + length - 1], length)
    return found


def _windows(hashes: np.ndarray, length: int) -> np.ndarray:
    """Of at least `length` words, by doubling: a row of 13 is two of 6 and a word."""
    total, span = hashes, 1
    for bit in bin(length)[3:]:
        total, span = total[:-span] * _power(span) + total[span:], 2 * span
        if bit == "1":
            total, span = total[:-1] * BASE + hashes[span:], span + 1
    return mixed(total)


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(int(BASE), exponent, 1 << 64))


def whole_windows(words: Words, length: int) -> np.ndarray:
    """int64: the places where `length` words in a row belong to one text."""
    texts = words.text_of_word
    if len(texts) < length:
        return np.empty(0, np.int64)
    return np.flatnonzero(texts[: len(texts) - length + 1] == texts[length - 1 :])
