"""The thought parser: the cut of the stream never changes what comes out."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.text.thoughts import ThoughtParser

TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</", "think>", "</th", " ", "\n", "a", "42", "답", ">"]),
    max_size=12,
).map("".join)


def part(chunks: list[str], inside_thought: bool) -> tuple[str, str, bool]:
    parser = ThoughtParser(inside_thought)
    events = [event for chunk in chunks for event in parser.feed(chunk)] + parser.close()
    assert all(text for _, text in events)
    kinds = [kind for kind, _ in events]
    assert kinds == sorted(kinds, reverse=True), "the thought comes before the answer"
    thought = "".join(text for kind, text in events if kind == "thought")
    return thought, "".join(text for kind, text in events if kind == "answer"), parser.inside_thought


@given(text=TEXTS, cuts=st.lists(st.integers(0, 100)), inside=st.booleans())
@settings(max_examples=500, deadline=None)
def test_any_chunking_gives_the_same(text: str, cuts: list[int], inside: bool) -> None:
    bounds = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in itertools.pairwise(bounds)]
    assert part(chunks, inside) == part([text], inside) == part(list(text), inside)


@given(thought=st.text().filter(lambda text: "</think>" not in text + "x"), answer=st.text())
@settings(deadline=None)
def test_parts_are_what_was_joined(thought: str, answer: str) -> None:
    if thought.endswith(("<", "</")) or thought.lstrip().startswith("<think>"):
        return
    assert part([f"{thought}</think>{answer}"], True) == (thought, answer, False)
    assert part([f"<think>{thought}</think>{answer}"], False) == (thought, answer, False)


@pytest.mark.parametrize(
    ("text", "inside", "expected"),
    [
        ("a", False, ("", "a", False)),
        ("  a", False, ("", "  a", False)),
        ("a <think> b", False, ("", "a <think> b", False)),
        ("a</think>b", False, ("", "a</think>b", False)),
        ("<thin", False, ("", "<thin", False)),
        ("<think>a", False, ("a", "", True)),
        ("a</thi", True, ("a</thi", "", True)),
        ("a<</think>b", True, ("a<", "b", False)),
        ("</think></think>", True, ("", "</think>", False)),
    ],
)
def test_edges(text: str, inside: bool, expected: tuple[str, str, bool]) -> None:
    assert part([text], inside) == expected


def test_text_comes_as_soon_as_it_is_certain() -> None:
    parser = ThoughtParser(inside_thought=True)
    assert parser.feed("ab<") == [("thought", "ab")]
    assert parser.feed("/x") == [("thought", "</x")]
    assert parser.feed("</think>c") == [("answer", "c")]
    assert parser.feed("<") == [("answer", "<")]
