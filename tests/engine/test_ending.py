"""When a completion is over: end tokens, stop ids, stop strings across tokens, the budget."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.engine.ending import Ending
from clearseek.engine.request import Sampling
from tests.engine.scripted import small_tokenizer

TOKENIZER = small_tokenizer()
END = TOKENIZER.eos_id
TEXTS = ("The answer is 17.", "답은 17 입니다.", "答案是十七。\n", "😀!")


def follow(tokens: list[int], **own) -> tuple[Ending, str]:
    ending, text = Ending(Sampling(**own), {END}, TOKENIZER), ""
    for token in tokens:
        text += ending.feed(token)
        if ending.finish_reason is not None:
            break
    return ending, text


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(TEXTS), st.data())
def test_a_stop_string_is_found_wherever_tokens_part_it(text, data):
    """Characters of several bytes are parted too: each byte is a token here."""
    whole = TEXTS[0] + text + TEXTS[1]
    start = data.draw(st.integers(0, len(text) - 1))
    stop = text[start : data.draw(st.integers(start + 1, len(text)))]
    pieces, rest = [], whole
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        pieces += TOKENIZER.encode_plain(rest[:size])
        rest = rest[size:]
    ending, said = follow(pieces, stop=(stop,), max_tokens=1000)
    assert said == whole[: whole.index(stop)]
    assert (ending.finish_reason, ending.stopped_by) == ("stop", stop)
    held = TOKENIZER.decode(pieces[: ending.num_tokens])
    assert stop in held
    assert stop not in TOKENIZER.decode(pieces[: ending.num_tokens - 1])


def test_the_models_end_token_ends_it_without_text():
    tokens = TOKENIZER.encode_plain("12 + 5")
    ending, text = follow([*tokens, END, *tokens], stop=("zzz",))
    assert (text, ending.finish_reason, ending.stopped_by) == ("12 + 5", "stop", None)
    assert ending.num_tokens == len(tokens) + 1


def test_ignore_eos_goes_on_past_it_and_stop_ids_still_count():
    tokens = TOKENIZER.encode_plain("12")
    ending, _ = follow([END, END, *tokens], ignore_eos=True, stop_ids=(tokens[-1],))
    assert (ending.finish_reason, ending.stopped_by) == ("stop", tokens[-1])
    assert ending.num_tokens == 2 + len(tokens)


def test_the_budget_ends_it_and_gives_out_what_was_held():
    tokens = TOKENIZER.encode_plain("so I am")
    ending, text = follow(tokens, max_tokens=len(tokens), stop=("amen",))
    assert (text, ending.finish_reason, ending.stopped_by) == ("so I am", "length", None)


def test_a_stop_string_at_the_last_token_of_the_budget_counts():
    tokens = TOKENIZER.encode_plain("so I am")
    ending, text = follow(tokens, max_tokens=len(tokens), stop=("am",))
    assert (text, ending.finish_reason, ending.stopped_by) == ("so I ", "stop", "am")


def test_without_a_tokenizer_only_ids_and_the_budget_count():
    ending = Ending(Sampling(max_tokens=2), {END})
    assert ending.feed(5) == ""
    assert ending.finish_reason is None
    ending.feed(6)
    assert ending.finish_reason == "length"
    with pytest.raises(AssertionError):
        ending.feed(7)
