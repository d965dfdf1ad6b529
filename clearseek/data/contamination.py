"""Evaluation items in training texts: whole ones, rows of 13 words that they share, and the longest such row.

13 words in a row is the measure of GPT-3's authors (Brown et al., arXiv:2005.14165, appendix C), here with a Chinese
character as a word. It says that wording is shared, not that an answer was learnt: problems made from one template
share it honestly. That is why whole items are counted apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearseek.data.words import BASE, Words, whole_windows, windows, words_of

OVERLAP_WORDS = 13
FEWEST_WORDS = 3  # of an item: fewer say nothing, and are counted as not looked for


@dataclass(frozen=True)
class Contamination:
    """What training texts hold of evaluation items; places in `item` and `text` are numbers of each, from 0.

    `whole` and `overlapping` are bool [items], `longest` int64 [items] in words (0 below 13 unless whole),
    `found_in` int64 [items] the first text with a whole item, else with the shared words (−1: none), and
    `touched` bool [texts] the texts that hold either.
    """

    whole: np.ndarray
    overlapping: np.ndarray
    longest: np.ndarray
    found_in: np.ndarray
    touched: np.ndarray
    too_short: int


def contamination(items: Sequence[str], training: Words, length: int = OVERLAP_WORDS) -> Contamination:
    """Look for every item in the training texts."""
    asked = words_of(items)
    sizes = np.diff(asked.offsets)
    found_in, touched = np.full(len(items), -1, np.int64), np.zeros(len(training.offsets) - 1, bool)
    overlapping = _overlaps(asked, training, length, found_in, touched)
    whole = _whole(asked, training, found_in, touched)
    longest = np.where(whole, sizes, 0)
    partly = np.flatnonzero(overlapping & ~whole)
    if len(partly):
        longest[partly] = _longest(asked, partly, _chosen(training, touched), length)
    return Contamination(whole, overlapping, longest, found_in, touched, int((sizes < FEWEST_WORDS).sum()))


def _overlaps(
    asked: Words, training: Words, length: int, found_in: np.ndarray, touched: np.ndarray
) -> np.ndarray:
    """Items that share `length` words in a row with a text; notes the first such text, and all of them."""
    overlapping = np.zeros(len(found_in), bool)
    (places, wanted), (in_training, having) = asked.rows(length), training.rows(length)
    hits = member(having, wanted)
    owners = training.text_of_word[in_training[hits]]
    touched[owners] = True
    first, index = np.unique(having[hits], return_index=True)
    at = np.minimum(np.searchsorted(first, wanted), max(len(first) - 1, 0))
    good = first[at] == wanted if len(first) else np.zeros(len(wanted), bool)
    items = asked.text_of_word[places[good]]
    overlapping[items] = True
    where = np.full(len(found_in), np.iinfo(np.int64).max)
    np.minimum.at(where, items, owners[index[at[good]]])
    found_in[overlapping] = where[overlapping]
    return overlapping


def member(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """int64: where in `values` something stands that is in `wanted`; a table of 2^22 bits sifts most out first."""
    mask = np.uint64((1 << 22) - 1)
    table = np.zeros(1 << 22, bool)
    table[wanted & mask] = True
    likely = np.flatnonzero(table[values & mask])
    return likely[np.isin(values[likely], wanted)]


def _whole(asked: Words, training: Words, found_in: np.ndarray, touched: np.ndarray) -> np.ndarray:
    """Items that stand in a text with all their words and what is between them."""
    whole, sizes = np.zeros(len(found_in), bool), np.diff(asked.offsets)
    opening = windows(asked.hashes, FEWEST_WORDS)
    long_enough = np.flatnonzero(sizes >= FEWEST_WORDS)
    begins = windows(training.hashes, FEWEST_WORDS)
    likely = member(begins, opening[asked.offsets[long_enough]])
    for size in np.unique(sizes[long_enough]).tolist():
        items = np.flatnonzero(sizes == size)
        by_hash: dict[int, list[int]] = {}
        for item in items.tolist():
            by_hash.setdefault(_hash_at(asked.hashes, asked.offsets[item : item + 1], size)[0], []).append(
                item
            )
        places = likely[np.isin(begins[likely], opening[asked.offsets[items]])]
        places = places[places <= len(training.hashes) - size]
        owners = training.text_of_word[places]
        places = places[owners == training.text_of_word[places + size - 1]]
        for place, value in zip(places.tolist(), _hash_at(training.hashes, places, size), strict=True):
            for item in by_hash.get(value, ()):
                if not _is_copy(asked, int(asked.offsets[item]), training, place, size):
                    continue
                text = int(np.searchsorted(training.offsets, place, "right")) - 1
                found_in[item] = found_in[item] if whole[item] else text
                whole[item] = touched[text] = True
    return whole


def _is_copy(asked: Words, first: int, training: Words, place: int, size: int) -> bool:
    """Whether the words there stand as in the item, and begin and end as it does.

    "5 hours?" isn't in "5 hours 50 minutes", and "59-56" isn't in "66+59-56".
    """
    if asked.between(first, size) != training.between(place, size):
        return False
    if asked.sign_before(first) != training.sign_before(place):
        return False
    closing = asked.rest_of_line(first + size - 1)
    rest = training.rest_of_line(place + size - 1)
    return (bool(closing) and rest.startswith(closing)) or not any(one.isalnum() for one in rest)


def _hash_at(hashes: np.ndarray, places: np.ndarray, size: int) -> list[int]:
    """The hash of `size` words from each of these places."""
    total = np.zeros(len(places), np.uint64)
    for step in range(size):
        total = total * BASE + hashes[places + step]
    return total.tolist()


def _chosen(words: Words, chosen: np.ndarray) -> Words:
    """The words of some texts alone."""
    kept = np.repeat(chosen, np.diff(words.offsets))
    offsets = np.concatenate([[0], np.cumsum(np.diff(words.offsets)[chosen])])
    texts = [words.texts[number] for number in np.flatnonzero(chosen).tolist()]
    return Words(texts, words.hashes[kept], offsets, words.begins[kept], words.ends[kept])


def _longest(asked: Words, items: np.ndarray, training: Words, length: int) -> np.ndarray:
    """int64: the most words in a row that each of these items shares, by halving what is still possible."""
    low, high = np.full(len(items), length), np.diff(asked.offsets)[items]
    while (low < high).any():
        middle = (low + high + 1) // 2
        for size in np.unique(middle[low < high]).tolist():
            group = np.flatnonzero((middle == size) & (low < high))
            places = whole_windows(training, size)
            having = np.unique(windows(training.hashes, size)[places])
            own = windows(asked.hashes, size)
            for number in group.tolist():
                item = items[number]
                mine = own[asked.offsets[item] : asked.offsets[item + 1] - size + 1]
                if np.isin(mine, having, kind="sort").any():
                    low[number] = size
                else:
                    high[number] = size - 1
    return low
