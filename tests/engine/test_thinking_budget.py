"""Thoughts that are closed at their budget or on demand, with tags that are tokens and with tags that are text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.config.errors import InputError
from clearseek.engine.request import Request, Sampling
from clearseek.engine.row import Row, RowMaker
from clearseek.text.tokenizer import Tokenizer
from tests.engine.scripted import small_tokenizer

TOKENIZER = small_tokenizer()
START, END = TOKENIZER.think_start_id, TOKENIZER.think_end_id
OPENED = tuple(TOKENIZER.encode_chat([{"role": "user", "content": "12 + 5?"}]))
CLOSED = tuple(TOKENIZER.encode_chat([{"role": "user", "content": "12 + 5?"}], thinking=False))
WORDS = TOKENIZER.encode_plain("Let me add: 12 + 5 = 17. The answer is 17, so I am sure.")


class PlainTags(Tokenizer):
    """The same tokenizer as one whose vocabulary has no thought tags."""

    def __init__(self, other: Tokenizer) -> None:
        super().__init__(other._backend, other.chat, other._config)
        self.think_start_id = self.think_end_id = None


def started(tokenizer: Tokenizer, prompt: tuple[int, ...], budget: int | None, max_tokens: int = 96) -> Row:
    maker = RowMaker(tokenizer.vocab_size, {tokenizer.eos_id}, tokenizer)
    request = Request(prompt, 0, sampling=Sampling(thinking_budget=budget, max_tokens=max_tokens))
    maker.check(request)
    return maker.start(request)


def go_on(row: Row, words: list[int]) -> list[int]:
    """Say `words`, or what is forced instead of each."""
    said = []
    for word in words:
        said.append(row.forced[0] if row.forced else word)
        row.note(said[-1])
    return said


@settings(deadline=None)
@given(st.integers(0, 12))
def test_a_thought_of_the_budget_is_closed_and_the_answer_goes_on(budget):
    row = started(TOKENIZER, OPENED, budget)
    said = go_on(row, WORDS[:20])
    assert said == [*WORDS[:budget], END, *WORDS[budget + 1 : 20]]
    assert row.forced_at == [budget]


def test_a_thought_that_the_model_closes_itself_is_left_alone():
    row = started(TOKENIZER, OPENED, 5)
    said = go_on(row, [*WORDS[:3], END, *WORDS[:12]])
    assert said == [*WORDS[:3], END, *WORDS[:12]]
    assert row.forced_at == []


def test_a_thought_that_the_model_opens_itself_counts_from_there():
    row = started(TOKENIZER, CLOSED[:-1], 2)
    assert go_on(row, [START, *WORDS[:5]]) == [START, *WORDS[:2], END, *WORDS[3:5]]


def test_where_thinking_is_off_nothing_is_forced():
    assert go_on(started(TOKENIZER, CLOSED, 0), WORDS[:5]) == WORDS[:5]


def test_answer_now_closes_an_open_thought_at_the_next_token():
    """Also of a request that was sent without a budget, whose thought nobody had followed."""
    for budget in (50, None):
        row = started(TOKENIZER, OPENED, budget)
        said = go_on(row, WORDS[:4])
        row.answer_now(said)
        assert row.forced == (END,)
        assert go_on(row, WORDS[:3]) == [END, *WORDS[1:3]]
        assert row.forced_at == [4]


def test_answer_now_after_the_thought_changes_nothing():
    row = started(TOKENIZER, OPENED, 50)
    said = go_on(row, [*WORDS[:2], END, WORDS[0]])
    row.answer_now(said)
    assert row.forced == ()


def test_tags_that_are_text_are_written_out():
    tokenizer = PlainTags(TOKENIZER)
    close = tokenizer.encode_plain("</think>")
    assert len(close) > 1
    prompt = tuple(tokenizer.encode_plain("User: 12 + 5?\n\nAssistant: <think>"))
    row = started(tokenizer, prompt, 3)
    said = go_on(row, WORDS[:20])
    assert said == [*WORDS[:3], *close, *WORDS[3 + len(close) : 20]]
    assert row.forced_at == list(range(3, 3 + len(close)))


def test_tags_that_are_text_may_be_closed_by_the_model_in_other_tokens():
    tokenizer = PlainTags(TOKENIZER)
    prompt = tuple(tokenizer.encode_plain("Assistant: <think>"))
    own = [token for character in "</think>" for token in tokenizer.encode_plain(character)]
    row = started(tokenizer, prompt, 20)
    assert go_on(row, [*WORDS[:3], *own, *WORDS]) == [*WORDS[:3], *own, *WORDS]


def test_an_engine_without_a_tokenizer_says_so():
    maker = RowMaker(100, {1})
    for own, said in ((Sampling(thinking_budget=3), "thinking_budget"), (Sampling(stop=("x",)), "stop")):
        with pytest.raises(InputError, match=f"{said} needs an engine that was made with a tokenizer"):
            maker.check(Request((1,), 0, sampling=own))
