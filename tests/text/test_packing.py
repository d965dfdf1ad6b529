"""Packing: every token that counts is predicted exactly once, from its own document alone."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.config.errors import InputError
from clearseek.text.packing import Example, Rows, epoch_order, pack, pack_arrays

POLICIES = ("best_fit", "concatenate")
PINNED_ORDER = [3, 2, 5, 4, 0, 1]
LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), max_size=40)


def numbered_examples(shape: list[tuple[int, int]]) -> list[Example]:
    """Examples whose tokens are all different, so that a token says where it comes from."""
    examples, start = [], 1
    for length, prompt in shape:
        examples.append(Example(range(start, start + length), min(prompt, length)))
        start += length
    return examples


def predictions(rows: Rows) -> Counter[tuple[int, int]]:
    """(token before, token) of every prediction that counts."""
    row, column = np.nonzero(rows.weights[:, 1:])
    return Counter(zip(rows.tokens[row, column].tolist(), rows.tokens[row, column + 1].tolist(), strict=True))


@given(
    shape=LENGTHS,
    sequence_length=st.integers(2, 24),
    policy=st.sampled_from(POLICIES),
    window=st.integers(1, 9),
)
@settings(max_examples=300, deadline=None)
def test_every_counted_token_is_predicted_once(
    shape: list[tuple[int, int]], sequence_length: int, policy: str, window: int
) -> None:
    examples = numbered_examples(shape)
    rows = pack(examples, sequence_length, policy, pad_id=0, window=window)
    expected = Counter(
        (token - 1, token)
        for e in examples
        for at, token in enumerate(e.tokens)
        if at >= max(1, e.num_prompt_tokens)
    )
    assert predictions(rows) == expected
    assert rows.num_counted_tokens == expected.total()


@given(
    shape=LENGTHS,
    sequence_length=st.integers(2, 24),
    policy=st.sampled_from(POLICIES),
    window=st.integers(1, 9),
)
@settings(max_examples=300, deadline=None)
def test_rows_are_well_formed(
    shape: list[tuple[int, int]], sequence_length: int, policy: str, window: int
) -> None:
    examples = numbered_examples(shape)
    rows = pack(examples, sequence_length, policy, pad_id=7777, window=window)
    assert (rows.tokens.dtype, rows.segments.dtype, rows.weights.dtype) == (np.int32, np.int32, np.float32)
    assert rows.tokens.shape == rows.segments.shape == rows.weights.shape == (len(rows), sequence_length)
    owner = {token: index for index, e in enumerate(examples) for token in e.tokens}
    for tokens, segments, weights in zip(rows.tokens, rows.segments, rows.weights, strict=True):
        real = segments > 0
        assert real[0]
        assert not (np.diff(real.astype(int)) > 0).any(), "padding stands at the end"
        assert (tokens[~real] == 7777).all()
        assert not weights[~real].any()
        assert weights[0] == 0
        steps = np.diff(segments[real])
        assert segments[0] == 1
        assert set(steps.tolist()) <= {0, 1}
        assert not weights[1:][segments[1:] != segments[:-1]].any()
        documents = [owner[token] for token in tokens[real].tolist()]
        assert [a != b for a, b in itertools.pairwise(documents)] == (steps == 1).tolist()
        assert documents == sorted(documents)


@given(shape=LENGTHS, sequence_length=st.integers(40, 60))
@settings(max_examples=100, deadline=None)
def test_best_fit_keeps_documents_whole(shape: list[tuple[int, int]], sequence_length: int) -> None:
    examples = numbered_examples(shape)
    rows = pack(examples, sequence_length)
    assert int(np.count_nonzero(rows.segments)) == sum(len(e.tokens) for e in examples)
    assert int(rows.segments.max(axis=1, initial=0).sum()) == len(examples)


def test_concatenation_pads_only_the_last_row() -> None:
    rows = pack(numbered_examples([(7, 0), (9, 2), (20, 0)]), 8, "concatenate")
    assert (rows.segments[:-1] > 0).all()
    assert rows.tokens[1, 0] == rows.tokens[0, -1]


def short_documents(count: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.random.default_rng(0).integers(20, 91, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(offsets[-1], dtype=np.int32) % 1000, offsets


def test_short_documents_leave_little_unused() -> None:
    tokens, offsets = short_documents(20_000)
    rows = pack_arrays(tokens, offsets, 10, 256)
    assert rows.num_padding_tokens < 0.03 * rows.tokens.size


def test_a_shuffled_order_stays_shuffled() -> None:
    """Rows keep the order of the windows, and long documents do not come before short ones."""
    _, offsets = short_documents(20_000)
    document = np.repeat(np.arange(20_000, dtype=np.int32), np.diff(offsets))
    rows = pack_arrays(document, offsets, 0, 256, window=4096)
    real = rows.segments > 0
    windows = np.where(real, rows.tokens, rows.tokens[:, :1]) // 4096
    assert (windows == windows[:, :1]).all()
    assert (np.diff(windows[:, 0]) >= 0).all()
    documents_per_row = rows.segments.max(axis=1)
    assert abs(np.corrcoef(documents_per_row, np.arange(len(rows)))[0, 1]) < 0.1


def test_arrays_lists_and_flat_documents_pack_alike() -> None:
    tokens, offsets = short_documents(200)
    lists = [Example(tokens[a:b].tolist(), 3) for a, b in itertools.pairwise(offsets)]
    arrays = [Example(np.array(example.tokens, np.int64), 3) for example in lists]
    for policy in POLICIES:
        flat = pack_arrays(tokens, offsets, 3, 128, policy)
        assert (
            pack(lists, 128, policy).fingerprint == pack(arrays, 128, policy).fingerprint == flat.fingerprint
        )
        assert flat.fingerprint != pack_arrays(tokens, offsets, 4, 128, policy).fingerprint


def test_rows_can_be_taken() -> None:
    rows = pack(numbered_examples([(7, 0), (9, 2), (20, 0)]), 8)
    some = rows.take([2, 0])
    assert len(some) == 2
    assert (some.tokens[1] == rows.tokens[0]).all()
    assert some.num_counted_tokens == np.count_nonzero(rows.weights[[2, 0]])


@pytest.mark.parametrize(
    ("examples", "length", "policy", "message"),
    [
        ([Example([1]), Example([])], 8, "best_fit", "example 1 holds no tokens"),
        ([Example([1, 2], 3)], 8, "best_fit", "example 0: 3 prompt tokens among 2"),
        ([Example([1])], 1, "best_fit", r"sequence_length \(1\)"),
        ([Example([1])], 8, "bestfit", "best_fit or concatenate"),
    ],
)
def test_wrong_input_is_named(examples: list[Example], length: int, policy: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pack(examples, length, policy)


def test_no_examples_give_no_rows() -> None:
    for policy in POLICIES:
        assert len(pack([], 8, policy)) == 0


@given(num_rows=st.integers(0, 300), seed=st.integers(0, 99), epoch=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_epoch_order_is_a_permutation_by_address(num_rows: int, seed: int, epoch: int) -> None:
    order = epoch_order(num_rows, seed, "sft", epoch)
    assert sorted(order.tolist()) == list(range(num_rows))
    assert (order == epoch_order(num_rows, seed, "sft", epoch)).all()


def test_epoch_order_depends_on_each_part_of_its_address() -> None:
    addresses = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]
    assert len({tuple(epoch_order(50, *address)) for address in addresses}) == 4
    assert epoch_order(6, 0, "pretrain", 0).tolist() == PINNED_ORDER
