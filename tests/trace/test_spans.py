"""Spans of an answer in documents are those that a slow search finds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.trace.index import suffix_array
from clearseek.trace.spans import find_spans
from clearseek.trace.words import words_of
from tests.trace import brute_force

TEXT = st.text(st.sampled_from("ab a_1 .-\n 등대 灯塔カé—Ⅳ😀"), max_size=40)


def found(answer: str, documents: list[str], min_words: int) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Spans and places, in characters, as the brute force says them."""
    array, starts = suffix_array(documents)
    result = {}
    for span in find_spans(words_of(answer), [array], min_words):
        content = answer.encode()
        begin, end = (len(content[:at].decode()) for at in (span.start, span.end))
        places = []
        for place in span.places[0]:
            number = int(np.searchsorted(starts, place, "right")) - 1
            places.append((number, len(documents[number].encode()[: place - starts[number]].decode())))
        result[begin, end] = places
        assert answer[begin:end].encode() == content[span.start : span.end]
    return result


@settings(max_examples=600, deadline=None)
@given(TEXT, st.lists(TEXT, min_size=1, max_size=4), st.integers(1, 4))
def test_spans_are_those_of_a_slow_search(answer, documents, min_words):
    assert found(answer, documents, min_words) == brute_force.spans(answer, documents, min_words)


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_words_are_those_of_a_regular_expression(text):
    content = text.encode()
    words = words_of(text)
    mine = [
        (len(content[:a].decode()), len(content[:b].decode()))
        for a, b in zip(words.starts, words.ends, strict=True)
    ]
    assert mine == brute_force.words(text)
