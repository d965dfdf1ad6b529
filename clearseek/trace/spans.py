"""The longest stretches of an answer that stand, word for word, in indexed documents."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearseek.trace.search import QUERY_END, SuffixArray
from clearseek.trace.words import Words


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `end` of the answer, and for every array the places in its text where they stand."""

    start: int
    end: int
    num_words: int
    places: tuple[np.ndarray, ...]

    @property
    def occurrences(self) -> int:
        """How often it stands in all of them together."""
        return sum(map(len, self.places))


def find_spans(
    words: Words, arrays: Sequence[SuffixArray], min_words: int = 1, min_bytes: int = 1
) -> list[Span]:
    """Every span that no longer one contains, rarest first, the longer before the shorter.

    A span begins and ends with whole words of the answer and of the document, has at least `min_words` words and
    `min_bytes` bytes, and stands in at least one of `arrays`.
    """
    query = np.append(np.frombuffer(words.text, np.uint8), np.uint8(QUERY_END))
    ends = np.zeros(len(words.starts), np.int64)
    for array in arrays:
        np.maximum(ends, _match_ends(words, query, array, min_words), out=ends)
    is_long = (ends - words.starts >= min_bytes) & (ends > 0)
    before = np.maximum.accumulate(np.concatenate([[0], np.where(is_long, ends, 0)]))[:-1]
    chosen = np.flatnonzero(is_long & (ends > before))
    starts, lengths = words.starts[chosen], ends[chosen] - words.starts[chosen]
    places = [_places(query, array, starts, lengths) for array in arrays]
    num_words = np.searchsorted(words.ends, ends[chosen]) - chosen + 1
    spans = [
        Span(int(starts[i]), int(starts[i] + lengths[i]), int(num_words[i]), tuple(p[i] for p in places))
        for i in range(len(chosen))
    ]
    return sorted(spans, key=lambda span: (span.occurrences, span.start - span.end, span.start))


def _match_ends(words: Words, query: np.ndarray, array: SuffixArray, min_words: int) -> np.ndarray:
    """Where the longest match from each word on ends, at the end of a word in both; 0 without `min_words` of them."""
    count = len(words.starts)
    shared = words.starts + array.longest(query, words.starts)
    shared = _whole_characters(words.text, shared)
    last = np.searchsorted(words.ends, shared, "right") - 1
    # where a match ends with a word of the answer, the document's word may go on: somewhere it must not
    unsure = np.flatnonzero(
        (last - np.arange(count) + 1 >= min_words) & (words.ends[np.maximum(last, 0)] == shared)
    )
    if len(unsure):
        lengths = shared[unsure] - words.starts[unsure]
        first, past = array.interval(query, words.starts[unsure], lengths)
        last[unsure[~_ends_somewhere(array, first, past, lengths)]] -= 1
    enough = last - np.arange(count) + 1 >= max(min_words, 1)
    return np.where(enough, words.ends[np.maximum(last, 0)], 0) if count else np.zeros(0, np.int64)


def _ends_somewhere(
    array: SuffixArray, first: np.ndarray, past: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Whether a word ends after `lengths` bytes at any suffix of each interval; a few of each are looked at first."""
    some = np.minimum(first[:, None] + np.arange(8), past[:, None] - 1)
    ends = array.ends_word(array.suffixes[some].astype(np.int64) + lengths[:, None])
    found = np.asarray(ends.any(axis=1))
    for i in np.flatnonzero(~found & (past - first > 8)).tolist():
        places = array.suffixes[first[i] + 8 : past[i]].astype(np.int64) + lengths[i]
        found[i] = array.ends_word(places).any()
    return found


def _places(
    query: np.ndarray, array: SuffixArray, starts: np.ndarray, lengths: np.ndarray
) -> list[np.ndarray]:
    """For every span the places in the text where it stands and ends a word, in order."""
    first, past = array.interval(query, starts, lengths)
    found = []
    for a, b, length in zip(first.tolist(), past.tolist(), lengths.tolist(), strict=True):
        places = array.suffixes[a:b].astype(np.int64)
        found.append(np.sort(places[array.ends_word(places + length)]))
    return found


def _whole_characters(text: bytes, ends: np.ndarray) -> np.ndarray:
    """The largest boundary of a character up to each offset: two signs may share their first bytes."""
    raw = np.append(np.frombuffer(text, np.uint8), np.uint8(0))
    ends = ends.copy()
    while (inside := (raw[ends] & 0xC0) == 0x80).any():
        ends[inside] -= 1
    return ends
