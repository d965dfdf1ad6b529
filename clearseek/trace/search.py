"""Longest matches of many places of a text at once, in a sorted array of the words of another.

The two binary searches of Manber and Myers (1993) §2, over all places together: what a suffix is known to share with
both ends of its interval is not compared again.
"""

from dataclasses import dataclass

import numpy as np

DOCUMENT_END = 0xFF  # stands in no UTF-8 text
QUERY_END = 0xFE  # nor does this
_WINDOW_BYTES = 16


@dataclass(frozen=True)
class SuffixArray:
    """A text and the places where its words begin, sorted by what follows.

    text uint8 [bytes], a document's end marked by `DOCUMENT_END`, which is the last byte too; suffixes int32 or int64
    [words]; word_ends uint8 [bytes / 8], a bit for every byte that ends a word, the lowest first.
    """

    text: np.ndarray
    suffixes: np.ndarray
    word_ends: np.ndarray

    def longest(self, query: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """How many bytes from each start of the query stand somewhere in the text, from the beginning of a word on.

        query uint8 with `QUERY_END` as its last byte; starts int64 [places]; the result int64 [places].
        """
        unlimited = np.full(len(starts), len(query))
        _, below, above = self._bisect(query, starts, unlimited, False)
        return np.maximum(below, above)

    def interval(
        self, query: np.ndarray, starts: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """First and past-the-last place in `suffixes` that begins with `lengths` bytes of the query, for each start."""
        first, _, _ = self._bisect(query, starts, lengths, False)
        last, _, _ = self._bisect(query, starts, lengths, True)
        return first, last

    def ends_word(self, places: np.ndarray) -> np.ndarray:
        """Whether a word ends with the byte before each place."""
        last = places - 1
        return (self.word_ends[last >> 3] >> (last & 7).astype(np.uint8)) & 1 == 1

    def _bisect(
        self, query: np.ndarray, starts: np.ndarray, limits: np.ndarray, past_equal: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each start the first suffix that isn't below it, and bytes shared with the one before and with it.

        Compares at most `limits` bytes; what is equal that far is not below, or with `past_equal` is.
        """
        low = np.zeros(len(starts), np.int64)
        high = np.full(len(starts), len(self.suffixes), np.int64)
        below, above = np.zeros_like(low), np.zeros_like(low)
        open_ = np.flatnonzero(low < high)
        while len(open_):
            middle = (low[open_] + high[open_]) >> 1
            shared, is_below = self._compare(
                query,
                starts[open_],
                limits[open_],
                self.suffixes[middle].astype(np.int64),
                np.minimum(below[open_], above[open_]),
                past_equal,
            )
            down, up = open_[is_below], open_[~is_below]
            low[down], below[down] = middle[is_below] + 1, shared[is_below]
            high[up], above[up] = middle[~is_below], shared[~is_below]
            open_ = open_[low[open_] < high[open_]]
        return low, below, above

    def _compare(
        self,
        query: np.ndarray,
        starts: np.ndarray,
        limits: np.ndarray,
        places: np.ndarray,
        shared: np.ndarray,
        past_equal: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bytes that suffix and query share (`shared` of them are known), and whether the suffix is below."""
        shared = np.minimum(shared, limits)
        is_below = np.full(len(starts), past_equal)
        rest, window = np.flatnonzero(shared < limits), _WINDOW_BYTES
        while len(rest):
            span = np.arange(window)
            mine = query[np.minimum((starts[rest] + shared[rest])[:, None] + span, len(query) - 1)]
            other = self.text[np.minimum((places[rest] + shared[rest])[:, None] + span, len(self.text) - 1)]
            differs = mine != other
            first = np.argmax(differs, axis=1)
            found = differs[np.arange(len(rest)), first]
            shared[rest] += np.where(found, first, window)
            within = found & (shared[rest] < limits[rest])
            row = np.flatnonzero(within)
            is_below[rest[row]] = other[row, first[row]] < mine[row, first[row]]
            shared[rest] = np.minimum(shared[rest], limits[rest])
            rest, window = rest[~found & (shared[rest] < limits[rest])], min(window * 4, 1024)
        return shared, is_below
