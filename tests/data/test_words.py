"""Words and rows of words against plain Python."""

import unicodedata

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.data.words import joined, whole_windows, windows, words_of

TEXT = st.text(
    st.one_of(
        st.characters(max_codepoint=0x2FFFF, exclude_categories=["Cs"]), st.sampled_from("ab1가나中文 .\n\0")
    ),
    max_size=40,
)


def plain_words(text: str) -> list[str]:
    """The definition, a character at a time."""
    words, last = [], ""
    for one in text.lower() if len(text.lower()) == len(text) else (c.lower()[0] for c in text):
        code = ord(one)
        is_han = any(
            a <= code <= b
            for a, b in (
                (0x3400, 0x4DBF),
                (0x4E00, 0x9FFF),
                (0xF900, 0xFAFF),
                (0x3005, 0x3007),
                (0x20000, 0x3FFFF),
            )
        )
        kind = "han" if is_han else "word" if code < 0x10000 and unicodedata.category(one)[0] in "LMN" else ""
        if kind == "han" or (kind == "word" and last != "word"):
            words.append(one)
        elif kind == "word":
            words[-1] += one
        last = kind
    return words


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, max_size=6))
def test_words_are_those_of_the_definition_and_equal_words_have_equal_hashes(texts: list[str]) -> None:
    words = words_of(texts)
    plain = [plain_words(text) for text in texts]
    assert np.diff(words.offsets).tolist() == [len(each) for each in plain]
    flat = [word for each in plain for word in each]
    by_hash = dict(zip(words.hashes.tolist(), flat, strict=True))
    assert [by_hash[value] for value in words.hashes.tolist()] == flat
    assert len(by_hash) == len(set(flat))


def test_long_words_that_differ_in_one_place_have_different_hashes() -> None:
    long = "pneumonoultramicroscopicsilicovolcanoconiosis" * 20
    others = [long[:place] + "X" + long[place + 1 :] for place in range(len(long))]
    assert len(set(words_of([long, *others]).hashes.tolist())) == 1 + len(long)


def test_a_word_says_where_it_stands() -> None:
    texts = ["Hello, 9天前!", "", "R1-mini는 작다"]
    words = words_of(texts)
    owners = np.repeat(np.arange(3), np.diff(words.offsets))
    spelled = [texts[o][b:e] for o, b, e in zip(owners, words.begins, words.ends, strict=True)]
    assert spelled == ["Hello", "9", "天", "前", "R1", "mini는", "작다"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(1, 17))
def test_rows_of_words_are_equal_where_their_words_are(numbers: list[int], length: int) -> None:
    hashes = windows(np.array(numbers, np.uint64), length).tolist()
    rows = [tuple(numbers[i : i + length]) for i in range(len(numbers) - length + 1)]
    assert len(hashes) == len(rows)
    assert len(set(hashes)) == len(set(rows)) == len(set(zip(hashes, rows, strict=True)))


def test_no_row_crosses_from_one_text_into_the_next() -> None:
    words = words_of(["a b c", "d", "", "e f g h"])
    assert whole_windows(words, 3).tolist() == [0, 4, 5]


def test_parts_of_a_bounded_size_give_the_same_words() -> None:
    texts = [f"가 나 {number} 字" * (number % 5) for number in range(40)]
    assert len(list(joined(texts, 20))) > 10
    assert sum(len(part.codes) for part in joined(texts, 20)) == sum(map(len, texts))
