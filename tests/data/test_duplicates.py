"""Repeats, exact and near, against sets of plain tuples."""

import random

import numpy as np

from clearseek.data.duplicates import exact_repeats, near_repeats, repeated_shares
from clearseek.data.words import words_of


def brute_force(texts: list[str], length: int) -> list[float]:
    seen: set[tuple[str, ...]] = set()
    shares = []
    for text in texts:
        words = text.split()
        rows = [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
        shares.append(sum(row in seen for row in rows) / max(len(rows), 1))
        seen.update(rows)
    return shares


def test_shares_are_those_that_sets_of_rows_give() -> None:
    draw = random.Random(1)
    pieces = [" ".join(draw.choices(["ab", "cd", "ef"], k=draw.randrange(1, 9))) for _ in range(40)]
    texts = [" ".join(draw.choices(pieces, k=draw.randrange(0, 5))) for _ in range(300)]
    for length in (1, 3, 8):
        assert np.allclose(repeated_shares(words_of(texts), length), brute_force(texts, length))


def test_an_edited_copy_is_near_and_another_text_on_the_same_matter_is_not() -> None:
    first = (
        "the river runs past the old mill and under two stone bridges before it meets the sea near a harbour "
        * 2
    )
    texts = [
        first.strip(),
        first.strip() + " today",
        "a river meets the sea near the harbour, past a mill and two bridges of stone, old ones",
        "short words",
        "short words",
    ]
    assert near_repeats(words_of(texts)).tolist() == [False, True, False, False, False]
    assert exact_repeats(texts).tolist() == [False, False, False, False, True]


def test_white_space_alone_makes_a_near_repeat_but_not_an_exact_one() -> None:
    text = "하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉"
    texts = [text, text.replace(" ", "\n")]
    assert exact_repeats(texts).tolist() == [False, False]
    assert near_repeats(words_of(texts)).tolist() == [False, True]


def test_nothing_repeats_in_nothing() -> None:
    assert exact_repeats([]).tolist() == []
    assert repeated_shares(words_of([])).tolist() == []
    assert repeated_shares(words_of(["", "", "..."])).tolist() == [0, 0, 0]
