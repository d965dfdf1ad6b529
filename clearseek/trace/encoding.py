"""Documents and examples to tokens, the one way that training and whoever retraces it both take."""

from collections.abc import Sequence

import numpy as np

from clearseek.tasks.corpus import Example
from clearseek.text.documents import Conversation, Document, TextDocument
from clearseek.text.examples import EncodedDocuments, encode_conversations, encode_texts
from clearseek.text.packing import Policy, Rows, pack_arrays
from clearseek.text.tokenizer import Tokenizer


def encode_examples(examples: Sequence[Example], tokenizer: Tokenizer, layout: str) -> EncodedDocuments:
    """Generated examples in the layout "chat" or "document"; the latter is learnt whole."""
    return _encode_pairs(example_texts(examples, tokenizer, layout), tokenizer, layout == "document")


def encode_documents(chosen: Sequence[Document], tokenizer: Tokenizer, learn_whole: bool) -> EncodedDocuments:
    """Documents that others wrote: texts are learnt whole, of conversations the last answer."""
    texts = [document.text for document in chosen if isinstance(document, TextDocument)]
    conversations = [document for document in chosen if isinstance(document, Conversation)]
    parts = [encode_texts(tokenizer, texts)] if texts else []
    if conversations or not parts:
        encoded = encode_conversations(tokenizer, conversations)
        parts.append(_learnt_whole(encoded) if learn_whole else encoded)
    return join(parts)


def encoding_order(chosen: Sequence[Document]) -> list[int]:
    """The numbers of documents in the order that `encode_documents` gives them: texts first."""
    texts = [i for i, document in enumerate(chosen) if isinstance(document, TextDocument)]
    return texts + [i for i, document in enumerate(chosen) if not isinstance(document, TextDocument)]


def example_texts(examples: Sequence[Example], tokenizer: Tokenizer, layout: str) -> list[tuple[str, str]]:
    """Examples as (prompt, completion) in the chat format, or as plain documents of three lines."""
    chat = tokenizer.chat
    if layout == "document":
        return [
            (f"{chat.bos_token}{e.prompt}\n", f"{e.thought}\n{e.answer}{chat.eos_token}") for e in examples
        ]
    before, after = chat.render_problem("\0").split("\0")
    return [
        (f"{before}{e.prompt}{after}", f"{e.thought}</think>{e.answer}{chat.eos_token}") for e in examples
    ]


def shuffled_rows(whole: EncodedDocuments, order_key: int, length: int, policy: Policy, pad_id: int) -> Rows:
    """All documents in the order that `order_key` draws, packed into rows of `length` + 1 tokens."""
    order = document_order(len(whole), order_key)
    lengths, prompts = np.diff(whole.offsets)[order], whole.num_prompt_tokens[order]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    place = np.repeat(whole.offsets[:-1][order] - offsets[:-1], lengths) + np.arange(offsets[-1])
    return pack_arrays(whole.ids[place], offsets, prompts, length + 1, policy, pad_id=pad_id)


def row_owners(whole: EncodedDocuments, order_key: int, length: int, policy: Policy) -> np.ndarray:
    """The number of the document that each token of `shuffled_rows` is of, int32 as those rows; -1 for padding."""
    owners = np.repeat(np.arange(len(whole), dtype=np.int32), np.diff(whole.offsets))
    numbered = EncodedDocuments(owners, whole.offsets, whole.num_prompt_tokens)
    return shuffled_rows(numbered, order_key, length, policy, -1).tokens


def blank_rows(rows: Rows, owners: np.ndarray, left_out: np.ndarray, pad_id: int) -> Rows:
    """Rows as `shuffled_rows` made them, with the places of the documents in `left_out` (bool) as empty as padding.

    `owners` as `row_owners`. Every other token stays where it is, and so does every row: no step reads anything else
    than it did.
    """
    blank = (owners >= 0) & left_out[owners]
    return Rows(
        np.where(blank, pad_id, rows.tokens).astype(rows.tokens.dtype),
        np.where(blank, 0, rows.segments).astype(rows.segments.dtype),
        np.where(blank, 0, rows.weights).astype(rows.weights.dtype),
    )


def document_order(count: int, order_key: int) -> np.ndarray:
    """The order that documents are packed in, int64 [count]."""
    return np.random.Generator(np.random.Philox(order_key)).permutation(count)


def join(parts: Sequence[EncodedDocuments]) -> EncodedDocuments:
    """Several sources' documents one after the other."""
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return EncodedDocuments(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.num_prompt_tokens for part in parts]),
    )


def _encode_pairs(texts: list[tuple[str, str]], tokenizer: Tokenizer, learn_whole: bool) -> EncodedDocuments:
    """Texts whose special tokens are our own; prompt and completion meet at a token boundary."""
    ids, offsets = tokenizer.encode_packed([part for pair in texts for part in pair])
    prompts = np.diff(offsets)[::2]
    return EncodedDocuments(ids, offsets[::2], np.zeros_like(prompts) if learn_whole else prompts)


def _learnt_whole(encoded: EncodedDocuments) -> EncodedDocuments:
    return EncodedDocuments(encoded.ids, encoded.offsets, np.zeros_like(encoded.num_prompt_tokens))
