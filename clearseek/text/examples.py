"""Documents to token ids ready for packing: texts between begin and end, conversations as the model meets.

A conversation's prompt is what generation starts from, and what follows, what the model should have sampled:
thought, `</think>`, answer, end. Text from data never becomes a special token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearseek.text.documents import Conversation
from clearseek.text.packing import Policy, Rows, pack_arrays
from clearseek.text.tokenizer import Tokenizer

_PROBE = " \ue000 \n"  # a content that a template would change if it changes any

Column = tuple[np.ndarray, np.ndarray]  # one part of every document: ids end to end, and the length of each


@dataclass(frozen=True, slots=True)
class EncodedDocuments:
    """Documents end to end: ids int32 [tokens], offsets int64 [documents + 1] and num_prompt_tokens int64."""

    ids: np.ndarray
    offsets: np.ndarray
    num_prompt_tokens: np.ndarray

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.num_prompt_tokens)

    def pack(self, sequence_length: int, policy: Policy = "best_fit", *, pad_id: int = 0) -> Rows:
        """Rows of these documents, as `pack_arrays` makes them."""
        prompts = self.num_prompt_tokens
        return pack_arrays(self.ids, self.offsets, prompts, sequence_length, policy, pad_id=pad_id)


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> EncodedDocuments:
    """Each text between begin-of-sentence, where the vocabulary has that token, and end-of-sentence."""
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    text = _encoded(tokenizer, texts)
    return _interleave([], [_constant(begin, len(texts)), text, _constant([tokenizer.eos_id], len(texts))])


def encode_conversations(tokenizer: Tokenizer, conversations: Sequence[Conversation]) -> EncodedDocuments:
    """Each conversation's prompt, which is not learnt, and its thought and answer, which are."""
    return _interleave(_prompts(tokenizer, conversations), _completions(tokenizer, conversations))


def _prompts(tokenizer: Tokenizer, conversations: Sequence[Conversation]) -> list[Column]:
    """What generation starts from, encoded by the batch where each conversation is one user message."""
    frame = _problem_frame(tokenizer)
    if frame and all([message["role"] for message in c.history] == ["user"] for c in conversations):
        texts = [conversation.history[0]["content"] for conversation in conversations]
        count = len(conversations)
        return [_constant(frame[0], count), _encoded(tokenizer, texts), _constant(frame[1], count)]
    prompts = [tokenizer.encode_chat(conversation.history) for conversation in conversations]
    ids = np.array([token for prompt in prompts for token in prompt], np.int32)
    return [(ids, np.array([len(prompt) for prompt in prompts], np.int64))]


def _completions(tokenizer: Tokenizer, conversations: Sequence[Conversation]) -> list[Column]:
    """What the model should have sampled; one text where the vocabulary has no thought tokens."""
    count = len(conversations)
    opens, end = tokenizer.chat.opens_thought, _constant([tokenizer.eos_id], count)
    if tokenizer.think_start_id is None or tokenizer.think_end_id is None:
        tags = tokenizer.thought_tags
        opening = "" if opens else tags.start
        return [
            _encoded(tokenizer, [f"{opening}{c.thought}{tags.end}{c.answer}" for c in conversations]),
            end,
        ]
    return [
        _constant([] if opens else [tokenizer.think_start_id], count),
        _encoded(tokenizer, [conversation.thought for conversation in conversations]),
        _constant([tokenizer.think_end_id], count),
        _encoded(tokenizer, [conversation.answer for conversation in conversations]),
        end,
    ]


def _problem_frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]] | None:
    """The ids around a lone user message; None where the template or the vocabulary may join them with it."""
    head, probe, tail = tokenizer.chat.render_problem(_PROBE).partition(_PROBE)
    before, after = tokenizer.encode(head), tokenizer.encode(tail)
    if not probe or not before or not after or not {before[-1], after[0]} <= tokenizer.control_ids:
        return None
    return before, after


def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> Column:
    ids, offsets = tokenizer.encode_packed(texts, plain=True)
    return ids, np.diff(offsets)


def _constant(ids: list[int], count: int) -> Column:
    return np.tile(np.array(ids, np.int32), count), np.full(count, len(ids), np.int64)


def _interleave(prompt: list[Column], completion: list[Column]) -> EncodedDocuments:
    """Columns to documents: each document is its part of every column, in order."""
    columns = prompt + completion
    lengths = np.stack([column_lengths for _, column_lengths in columns], axis=1)
    ends = np.cumsum(lengths).reshape(lengths.shape)
    ids = np.empty(int(lengths.sum()), np.int32)
    for (part, part_lengths), starts in zip(columns, (ends - lengths).T, strict=True):
        shift = starts - (np.cumsum(part_lengths) - part_lengths)
        ids[np.repeat(shift, part_lengths) + np.arange(len(part))] = part
    return EncodedDocuments(
        ids,
        np.concatenate([[0], ends[:, -1]]).astype(np.int64),
        lengths[:, : len(prompt)].sum(axis=1, dtype=np.int64),
    )
