"""Text from tokens one at a time: the same text as decoding all at once, and never half a character."""

from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.text.incremental import IncrementalDecoder


def pieces(tokenizer, ids):
    decoder = IncrementalDecoder(tokenizer)
    return [*(decoder.feed(token) for token in ids), decoder.close()]


@settings(deadline=None, max_examples=100)
@given(st.text())
def test_pieces_of_a_text_hold_whole_characters(tokenizer, text):
    said = pieces(tokenizer, tokenizer.encode_plain(text))
    assert "".join(said) == text
    assert all("\ufffd" not in piece for piece in said) or "\ufffd" in text


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_pieces_of_any_tokens_are_their_text(tokenizer, data):
    plain = [token for token in range(tokenizer.vocab_size) if token not in tokenizer.control_ids]
    ids = data.draw(st.lists(st.sampled_from(plain)))
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_text_before_half_a_character_is_given_out_at_once(tokenizer, data):
    """Also where one token holds both: a stop string that ends there is not found a token late."""
    plain = [token for token in range(tokenizer.vocab_size) if token not in tokenizer.control_ids]
    decoder, ids, said = IncrementalDecoder(tokenizer), [], ""
    for token in data.draw(st.lists(st.sampled_from(plain))):
        ids.append(token)
        said += decoder.feed(token)
        assert said.startswith(tokenizer.decode(ids).rstrip("\ufffd"))


def test_a_character_of_three_tokens_comes_with_its_last(tokenizer):
    ids = tokenizer.encode_plain("\U0001f914")
    assert len(ids) > 1, "the vocabulary knows this character"
    decoder = IncrementalDecoder(tokenizer)
    assert [decoder.feed(token) for token in ids] == [""] * (len(ids) - 1) + ["\U0001f914"]


def test_a_broken_character_holds_back_no_later_one(tokenizer):
    broken = tokenizer.encode_plain("\U0001f914")[:1]
    said = pieces(tokenizer, [*broken, *broken, *tokenizer.encode_plain("a")])
    assert "".join(said) == "\ufffd\ufffda"
    assert said[-1] == ""


def test_thought_tags_stay_and_special_tokens_go(tokenizer):
    ids = [tokenizer.think_start_id, *tokenizer.encode_plain("a"), tokenizer.think_end_id, tokenizer.eos_id]
    assert "".join(pieces(tokenizer, ids)) == "<think>a</think>"
