"""Texts that repeat earlier ones: exactly, or nearly, by the rows of words that they share."""

from collections.abc import Sequence

import numpy as np

from clearseek.data.words import Words

SHINGLE_WORDS = 8
NEAR_SHARE = (
    0.8  # of a text's shingles; what is usual for near-duplicates (Lee et al., arXiv:2107.06499, §4.2)
)


def exact_repeats(texts: Sequence[str]) -> np.ndarray:
    """bool [texts]: whether the same text, character by character, came before."""
    first = dict(
        zip(reversed(texts), range(len(texts) - 1, -1, -1), strict=True)
    )  # the last written is the first
    places = np.fromiter(map(first.__getitem__, texts), np.int64, len(texts))
    return places != np.arange(len(texts))


def repeated_shares(words: Words, length: int = SHINGLE_WORDS) -> np.ndarray:
    """float64 [texts]: which part of a text's shingles (`length` words in a row) stand in texts before it.

    0 for a text of fewer words than that.
    """
    places, hashes = words.rows(length)
    owners = words.text_of_word[places]
    order = np.argsort(hashes)
    in_order, owners_in_order = hashes[order], owners[order]
    begins = np.ones(len(order), bool)
    begins[1:] = in_order[1:] != in_order[:-1]
    firsts = np.flatnonzero(begins)
    earliest = np.minimum.reduceat(owners_in_order, firsts) if len(firsts) else firsts
    repeats = np.empty(len(order), bool)
    repeats[order] = np.repeat(earliest, np.diff(firsts, append=len(order))) < owners_in_order
    num_texts = len(words.offsets) - 1
    shingles = np.bincount(owners, minlength=num_texts)
    return np.bincount(owners, repeats, num_texts) / np.maximum(shingles, 1)


def near_repeats(words: Words, length: int = SHINGLE_WORDS, share: float = NEAR_SHARE) -> np.ndarray:
    """bool [texts]: whether at least `share` of a text's shingles stand in texts before it; exact repeats too,
    where they are long enough to have a shingle.
    """
    return repeated_shares(words, length) >= share
