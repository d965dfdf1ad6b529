"""Evaluation items in training texts, against plain searching."""

import random

from clearseek.data.contamination import FEWEST_WORDS, OVERLAP_WORDS, contamination
from clearseek.data.words import words_of


def brute_force(item: str, texts: list[str]) -> int:
    """The longest row of words of an item that stands in a text."""
    words = item.split()
    padded = [f" {text} " for text in texts]
    for length in range(len(words), 0, -1):
        rows = (" ".join(words[i : i + length]) for i in range(len(words) - length + 1))
        if any(f" {row} " in text for row in rows for text in padded):
            return length
    return 0


def test_the_longest_row_is_that_of_plain_searching() -> None:
    draw = random.Random(2)
    texts = [" ".join(draw.choices("abcdefgh", k=60)) for _ in range(60)]
    items = []
    for _ in range(120):
        text = draw.choice(texts).split()
        cut = draw.randrange(0, 40)
        own = draw.choices("ijkl", k=draw.randrange(1, 6))
        items.append(" ".join([*own, *text[cut : cut + draw.randrange(2, 30)], *own]))
    found = contamination(items, words_of(texts))
    expected = [brute_force(item, texts) for item in items]
    assert found.overlapping.tolist() == [length >= OVERLAP_WORDS for length in expected]
    assert found.longest.tolist() == [length if length >= OVERLAP_WORDS else 0 for length in expected]
    assert sum(found.overlapping) > 20
    assert not found.whole.any()
    for item, text in zip(items, found.found_in.tolist(), strict=True):
        first = next((i for i, each in enumerate(texts) if brute_force(item, [each]) >= OVERLAP_WORDS), -1)
        assert text == first


def test_a_whole_item_is_found_in_three_languages_whatever_its_line_breaks() -> None:
    items = [
        "Who is a knight? Eva: I am not like Tom.",
        "오늘은 월요일. 9일 전은 무슨 요일?",
        "骑士还是骗子？小周：小张是骑士。",
    ]
    texts = [
        "nothing here",
        "Read: who is a KNIGHT?\nEva: I am not like Tom.\nTom.",
        f"질문 {items[1]} 답",
        f"题目{items[2]}答案",
    ]
    found = contamination(items, words_of(texts))
    assert found.whole.tolist() == [True, True, True]
    assert found.found_in.tolist() == [1, 2, 3]
    assert found.touched.tolist() == [False, True, True, True]


def test_other_numbers_signs_beginnings_and_endings_are_other_items() -> None:
    items = ["What is 28-14?", "How many minutes are 5 hours?", "计算59-56等于多少", "Compute 7+1"]
    texts = [
        "What is 28+14?", "What is 28-14-14?", "What is 28-145?",
        "How many minutes are 5 hours 50 minutes?", "计算66+59-56等于多少", "Compute 7+1.5", "Compute 7+1+2",
    ]  # fmt: skip
    assert not contamination(items, words_of(texts)).whole.any()
    assert contamination(items, words_of([*texts, "Q: What is 28-14? A: 14"])).found_in.tolist() == [
        7,
        -1,
        -1,
        -1,
    ]


def test_items_too_short_to_say_anything_are_counted_as_such() -> None:
    found = contamination(["1+1", "yes", "", "a b c"], words_of(["yes 1+1 a b c"]))
    assert found.too_short == 3
    assert FEWEST_WORDS == 3
    assert found.whole.tolist() == [False, False, False, True]


def test_no_item_spans_two_texts() -> None:
    item = " ".join("abcdefghijklmn")
    found = contamination([item], words_of([item[:13], item[13:]]))
    assert not found.whole.any()
    assert not found.overlapping.any()
    assert not found.touched.any()


def test_nothing_is_found_in_nothing() -> None:
    assert contamination([], words_of(["a b c"])).touched.tolist() == [False]
    assert contamination(["a b c"], words_of([])).found_in.tolist() == [-1]
