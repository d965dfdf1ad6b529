"""Text from tokens as they come: the same text as decoding all at once, and never half a character."""

import itertools

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
    plain = plain_tokens(tokenizer)
    ids = data.draw(st.lists(st.sampled_from(plain)))
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_text_before_half_a_character_is_given_out_at_once(tokenizer, data):
    """Also where one token holds both: a stop string that ends there is not found a token late."""
    plain = plain_tokens(tokenizer)
    decoder, ids, said = IncrementalDecoder(tokenizer), [], ""
    for token in data.draw(st.lists(st.sampled_from(plain))):
        ids.append(token)
        said += decoder.feed(token)
        assert said.startswith(tokenizer.decode(ids).rstrip("\ufffd"))


class ByteFallback:
    """Decodes as sentencepiece vocabularies do: bytes in a row that are no text are so many question marks, and the
    first word loses its space."""

    think_start_id = think_end_id = None
    control_ids = frozenset()

    def decode(self, ids, skip_special=False):
        runs = itertools.groupby(ids, key=lambda token: token < 256)
        parts = [self._bytes(bytes(run)) if is_bytes else " word" * len([*run]) for is_bytes, run in runs]
        return "".join(parts).removeprefix(" ")

    @staticmethod
    def _bytes(run):
        try:
            return run.decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(run)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_many_at_once_are_the_text_of_one_after_another(tokenizer, data):
    if data.draw(st.booleans()):
        texts = st.text(max_size=3).map(lambda text: [*text.encode()])
        parts = st.lists(st.one_of(st.just([256]), texts, st.integers(0, 256).map(lambda token: [token])))
        used, ids = ByteFallback(), [token for part in data.draw(parts) for token in part]
    else:
        plain = [*plain_tokens(tokenizer), *tokenizer.encode_plain("\U0001f914 in the middle")]
        used, ids = tokenizer, data.draw(st.lists(st.sampled_from(plain)))
    wanted = "".join(pieces(used, ids))
    decoder, said, rest = IncrementalDecoder(used), "", ids
    while rest:
        count = data.draw(st.integers(1, len(rest)))
        said += decoder.feed_all(rest[:count])
        rest = rest[count:]
        assert wanted.startswith(said)
    assert said + decoder.close() == wanted


def plain_tokens(tokenizer):
    return [token for token in range(tokenizer.vocab_size) if token not in tokenizer.control_ids]


def test_special_tokens_among_many_are_left_out(tokenizer):
    ids = [tokenizer.think_start_id, *tokenizer.encode_plain("a b"), tokenizer.think_end_id, tokenizer.eos_id]
    decoder = IncrementalDecoder(tokenizer)
    assert (
        decoder.feed_all(ids) + decoder.feed_all([tokenizer.eos_id]) + decoder.feed_all([])
        == "<think>a b</think>"
    )


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
