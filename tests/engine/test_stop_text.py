"""Stop strings: any chunking of a text gives the same decision as a search for them in the whole of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearseek.engine.stop_text import StopText


def cut(chunks: list[str], stops: list[str]) -> tuple[str, str | None]:
    stop_text = StopText(stops)
    text = "".join(stop_text.feed(chunk) for chunk in chunks)
    return text + stop_text.close(), stop_text.found


def searched(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The first end of any stop string, of those that end there the longest."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


STOPS = st.lists(st.text("ab한", min_size=1, max_size=5), min_size=1, max_size=4, unique=True)


@given(STOPS, st.lists(st.text("ab한", max_size=4), max_size=12))
def test_any_chunking_stops_where_a_search_does(stops, chunks):
    assert cut(chunks, stops) == searched("".join(chunks), stops)


@given(STOPS, st.lists(st.text("ab한", max_size=4), max_size=12))
def test_what_is_held_back_could_be_the_beginning_of_a_stop_string(stops, chunks):
    """And what is given out is never taken back."""
    stop_text, given_out, seen = StopText(stops), "", ""
    for chunk in chunks:
        given_out, seen = given_out + stop_text.feed(chunk), seen + chunk
        if stop_text.found is not None:
            break
        held = seen[len(given_out) :]
        assert seen.startswith(given_out)
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)


@pytest.mark.parametrize(
    ("stops", "text", "left"),
    [
        (["\n\n"], "one\n\ntwo", "one"),
        (["abcd", "bc"], "xabcd", "xa"),  # bc is complete first
        (["b", "ab"], "xab", "x"),  # both are complete at once: the longer
        (["aab"], "aaab", "a"),
        (["stop"], "sto", "sto"),
    ],
)
def test_examples(stops, text, left):
    assert cut(list(text), stops)[0] == left
