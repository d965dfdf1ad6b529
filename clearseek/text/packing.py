"""Token sequences packed into rows of one length, with the segment and the loss weight of every position.

A row is trained with inputs `tokens[:, :-1]` and targets `tokens[:, 1:]`; `weights[:, t]` is the weight of
predicting `tokens[:, t]`. It is 0 for prompts, for padding, and for the first token of a document, which
nothing in its own document predicts. A document that is cut goes on in another row from its last token there,
so that every token that counts is predicted exactly once.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Literal

import numpy as np

from clearseek.config.errors import InputError

Policy = Literal["best_fit", "concatenate"]


@dataclass(frozen=True, slots=True)
class Example:
    """One document: its tokens, of which the first `num_prompt_tokens` are read but not learnt."""

    tokens: Sequence[int] | np.ndarray
    num_prompt_tokens: int = 0


@dataclass(frozen=True)
class Rows:
    """Packed rows: N rows of T positions.

    tokens int32 [N, T]; segments int32 [N, T], 0 for padding, else 1, 2, … per document within the row;
    weights float32 [N, T], the weight of predicting tokens[:, t] from the tokens of the same segment before
    it.
    """

    tokens: np.ndarray
    segments: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.tokens)

    @cached_property
    def num_counted_tokens(self) -> int:
        """Number of predictions that the loss counts."""
        return int(np.count_nonzero(self.weights))

    @cached_property
    def num_padding_tokens(self) -> int:
        """Number of positions that hold nothing."""
        return int(np.count_nonzero(self.segments == 0))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the shape and the content."""
        digest = hashlib.sha256(repr(self.tokens.shape).encode())
        for array in (self.tokens, self.segments, self.weights):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def take(self, indices: np.ndarray | Sequence[int]) -> "Rows":
        """The rows at `indices`, in that order."""
        return Rows(self.tokens[indices], self.segments[indices], self.weights[indices])


def pack(
    examples: Sequence[Example],
    sequence_length: int,
    policy: Policy = "best_fit",
    *,
    pad_id: int = 0,
    window: int = 8192,
) -> Rows:
    """Pack `examples` into rows; see `pack_arrays`. Raises InputError for an empty example."""
    lengths = np.fromiter((len(example.tokens) for example in examples), np.int64, len(examples))
    prompts = np.fromiter((example.num_prompt_tokens for example in examples), np.int64, len(examples))
    if examples and all(isinstance(example.tokens, np.ndarray) for example in examples):
        tokens = np.concatenate([example.tokens for example in examples]).astype(np.int32, copy=False)
    else:
        tokens = np.fromiter(chain.from_iterable(e.tokens for e in examples), np.int32, int(lengths.sum()))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return pack_arrays(tokens, offsets, prompts, sequence_length, policy, pad_id=pad_id, window=window)


def pack_arrays(
    tokens: np.ndarray,
    offsets: np.ndarray,
    num_prompt_tokens: np.ndarray | int,
    sequence_length: int,
    policy: Policy = "best_fit",
    *,
    pad_id: int = 0,
    window: int = 8192,
) -> Rows:
    """Pack documents that lie end to end, as `Tokenizer.encode_packed` gives them.

    "best_fit" keeps a document whole where it fits a row (best-fit decreasing among `window` documents at a
    time, so that a shuffled order stays shuffled); "concatenate" cuts the stream of documents, padding only
    the last row.
    """
    lengths = np.diff(offsets)
    prompts = np.broadcast_to(np.asarray(num_prompt_tokens, np.int64), lengths.shape)
    _check(lengths, prompts, sequence_length)
    position = np.arange(len(tokens)) - np.repeat(offsets[:-1], lengths)
    counted = position >= np.maximum(np.repeat(prompts, lengths), 1)
    if policy == "concatenate":
        source, segments = _concatenate(lengths, sequence_length)
    elif policy == "best_fit":
        source, segments = _best_fit(offsets, sequence_length, window)
    else:
        raise InputError(f"packing policy {policy!r} is not known; choose best_fit or concatenate")
    real = segments > 0
    packed = (
        np.where(real, tokens[source], pad_id).astype(np.int32) if len(tokens) else source.astype(np.int32)
    )
    weights = np.zeros(segments.shape, np.float32)
    weights[:, 1:] = counted[source[:, 1:]] & real[:, 1:] & (segments[:, 1:] == segments[:, :-1])
    return Rows(packed, segments, weights)


def epoch_order(num_rows: int, seed: int, stage: str, epoch: int) -> np.ndarray:
    """A permutation of rows, int64 [num_rows], that depends on (seed, stage, epoch) and nothing else."""
    key = hashlib.sha256(f"{seed}/{stage}/{epoch}".encode()).digest()[:16]
    draws = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(num_rows)
    return np.argsort(draws, kind="stable")


def row_numbers(num_rows: int, step: int, batch_rows: int, seed: int, stage: str) -> list[int]:
    """The rows that a step (from 0) reads: all rows in a new order every epoch, addressed by the step alone."""
    chosen, orders = [], {}
    for position in range(step * batch_rows, (step + 1) * batch_rows):
        epoch, place = divmod(position, num_rows)
        if epoch not in orders:
            orders[epoch] = epoch_order(num_rows, seed, stage, epoch)
        chosen.append(int(orders[epoch][place]))
    return chosen


def _check(lengths: np.ndarray, prompts: np.ndarray, sequence_length: int) -> None:
    if sequence_length < 2:
        raise InputError(f"sequence_length ({sequence_length}) must be at least 2")
    if (lengths == 0).any():
        raise InputError(f"example {int(np.argmax(lengths == 0))} holds no tokens; leave it out")
    if (prompts > lengths).any() or (prompts < 0).any():
        place = int(np.argmax((prompts > lengths) | (prompts < 0)))
        raise InputError(f"example {place}: {prompts[place]} prompt tokens among {lengths[place]} tokens")


def _concatenate(lengths: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Source index and segment of every position; each row begins with the last token of the row before."""
    total, stride = int(lengths.sum()), sequence_length - 1
    num_rows = max(-(-(total - 1) // stride), 1) if total else 0
    source = np.arange(num_rows)[:, None] * stride + np.arange(sequence_length)[None, :]
    real = source < total
    source = np.where(real, source, 0)
    document = np.repeat(np.arange(len(lengths)), lengths)[source]
    segments = np.where(real, document - document[:, :1] + 1, 0).astype(np.int32)
    return source, segments


def _best_fit(offsets: np.ndarray, sequence_length: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Source index and segment of every position, documents in their order within a row."""
    starts, lengths = _pieces(offsets, sequence_length)
    rows = np.empty(len(lengths), np.int64)
    num_rows = 0
    for begin in range(0, len(lengths), window):
        part = lengths[begin : begin + window]
        rows[begin : begin + window], used = fill_bins(part, sequence_length)
        rows[begin : begin + window] += num_rows
        num_rows += used
    order = np.argsort(rows, kind="stable")
    starts, lengths, rows = starts[order], lengths[order], rows[order]
    first = np.searchsorted(rows, rows)  # index of the first piece of the same row
    ends = np.cumsum(lengths)
    begins = ends - lengths
    column_of_piece = begins - begins[first] if len(rows) else begins
    within = np.arange(int(lengths.sum())) - np.repeat(begins, lengths)
    flat = np.repeat(rows * sequence_length + column_of_piece, lengths) + within
    source = np.zeros(num_rows * sequence_length, np.int64)
    segments = np.zeros(num_rows * sequence_length, np.int32)
    source[flat] = np.repeat(starts, lengths) + within
    segments[flat] = np.repeat(np.arange(len(rows)) - first + 1, lengths)
    shape = (num_rows, sequence_length)
    return source.reshape(shape), segments.reshape(shape)


def _pieces(offsets: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and length of every piece: whole documents, and long ones cut with one token of overlap."""
    lengths, stride = np.diff(offsets), sequence_length - 1
    num_pieces = np.maximum(-(-(lengths - 1) // stride), 1)
    number = np.arange(int(num_pieces.sum())) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)
    starts = np.repeat(offsets[:-1], num_pieces) + number * stride
    ends = np.minimum(starts + sequence_length, np.repeat(offsets[1:], num_pieces))
    return starts, ends - starts


def fill_bins(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Best-fit decreasing: the row of each piece, numbered by its first piece, and how many rows.

    `open_mask` has bit s set where some row has s positions left, so the tightest fit is its lowest bit from
    the piece's length on.
    """
    room: list[list[int]] = [[] for _ in range(capacity + 1)]
    open_mask, num_bins = 0, 0
    bins = np.empty(len(lengths), np.int64)
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        fitting = open_mask >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            chosen = room[space].pop()
            if not room[space]:
                open_mask ^= 1 << space
        else:
            space, chosen, num_bins = capacity, num_bins, num_bins + 1
        bins[piece] = chosen
        if space > length:
            room[space - length].append(chosen)
            open_mask |= 1 << (space - length)
    _, first_piece, which = np.unique(bins, return_index=True, return_inverse=True)
    rank = np.empty(num_bins, np.int64)
    rank[np.argsort(first_piece)] = np.arange(num_bins)
    return rank[which], num_bins
