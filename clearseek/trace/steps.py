"""Which steps read a document: the rows packed again in the same order, and the rows that each step took.

Nothing of this is stored: order, packing and epochs are functions of the seed, so that one `mix` record says for
every step what it read. Its `rows_sha256` proves that the rows are those of the training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clearseek.config.errors import RunError
from clearseek.tasks.corpus import Example
from clearseek.text.documents import Document
from clearseek.text.examples import EncodedDocuments
from clearseek.text.packing import Rows, epoch_order, row_numbers
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.encoding import encode_documents, encode_examples, encoding_order, join, shuffled_rows
from clearseek.trace.kept import is_regenerated
from clearseek.trace.sources import Record, RunReadings, StageReading


@dataclass(frozen=True)
class Pieces:
    """The pieces of a stage's documents in the order of its rows: int64 [pieces] the row that each lies in, and the
    document that it is of."""

    rows: np.ndarray
    documents: np.ndarray
    num_rows: int
    num_documents: int


class DocumentSteps:
    """The steps of one stage by document, and its documents by step; steps count from 1 as in the ledger.

    Documents are numbered over all sources of the stage, in the order they were read.
    """

    def __init__(self, pieces: Pieces, readings: RunReadings, stage: StageReading) -> None:
        order = np.argsort(pieces.documents, kind="stable")
        self._rows, self._documents = pieces.rows[order], pieces.documents
        self._starts = np.searchsorted(pieces.documents[order], np.arange(pieces.num_documents + 1))
        self._row_starts = np.searchsorted(pieces.rows, np.arange(pieces.num_rows + 1))
        self._batch_rows, self._address = batch_of(readings, stage)
        learnt = [int(record["step"]) for record in stage.steps if record.get("tokens")]
        self._is_step = np.zeros(max(learnt, default=0) + 1, bool)
        self._is_step[learnt] = True
        last = len(self._is_step) - 1
        self._steps_of_row = steps_of_rows(pieces.num_rows, last, self._batch_rows, *self._address)

    def of(self, document: int) -> list[int]:
        """The steps that read a document, in order; a step that read it in two pieces is named once."""
        rows = self._rows[self._starts[document] : self._starts[document + 1]]
        steps = np.unique(self._steps_of_row[:, rows])
        steps = steps[steps < len(self._is_step)]
        return [int(step) for step in steps[self._is_step[steps]]]

    def documents_of(self, step: int) -> list[int]:
        """The documents that a step read, in order of their numbers; none for a step that learnt nothing."""
        if not 0 < step < len(self._is_step) or not self._is_step[step]:
            return []
        rows = row_numbers(len(self._row_starts) - 1, step - 1, self._batch_rows, *self._address)
        pieces = [self._documents[self._row_starts[row] : self._row_starts[row + 1]] for row in rows]
        return [int(document) for document in np.unique(np.concatenate(pieces))]


def steps_of_rows(num_rows: int, num_steps: int, batch_rows: int, seed: int, stage: str) -> np.ndarray:
    """The step (from 1) of every row in every epoch that the steps reach, int64 [epochs, rows].

    Those of the last epoch may lie beyond `num_steps`.
    """
    epochs = max(-(-num_steps * batch_rows // num_rows), 1)
    steps = np.empty((epochs, num_rows), np.int64)
    for epoch in range(epochs):
        positions = epoch * num_rows + np.arange(num_rows)
        steps[epoch, epoch_order(num_rows, seed, stage, epoch)] = positions // batch_rows + 1
    return steps


def batch_of(readings: RunReadings, stage: StageReading) -> tuple[int, tuple[int, str]]:
    """Rows in a step, and the address (seed, name) of the order that they are taken in."""
    if stage.kind == "rl":  # its supervised rows, a micro-batch with every batch of rollouts
        return int(stage.config["micro_batch_rows"]), (readings.seed, f"{stage.name}/sft")
    return int(stage.config["batch_rows"]), (readings.seed, stage.name)


def document_steps(
    readings: RunReadings, stage: StageReading, sources: Sequence[Sequence[Document | Example]]
) -> DocumentSteps:
    """The steps of a stage's documents, given all of its sources; RunError as `find_pieces`."""
    return DocumentSteps(find_pieces(readings, stage, sources), readings, stage)


def find_pieces(
    readings: RunReadings, stage: StageReading, sources: Sequence[Sequence[Document | Example]]
) -> Pieces:
    """Encode and pack a stage's sources again. RunError where the rows are not those of the training."""
    assert stage.mix is not None
    tokenizer = _tokenizer(readings.run_dir, stage)
    parts, numbers, first = [], [], 0
    for documents, source in zip(sources, stage.sources, strict=True):
        is_generated = is_regenerated(source)
        if is_generated:
            parts.append(encode_examples(documents, tokenizer, source.layout))  # type: ignore[arg-type]
        else:
            parts.append(encode_documents(documents, tokenizer, source.layout == "document"))  # type: ignore[arg-type]
        places = range(len(documents)) if is_generated else encoding_order(documents)  # type: ignore[arg-type]
        numbers.append(first + np.asarray(places, np.int64))
        first += len(documents)
    whole, mix = join(parts), stage.mix
    rows = _pack(whole, mix, tokenizer.pad_id)
    if rows.fingerprint != mix["rows_sha256"]:
        raise RunError(
            f"{readings.run_dir}: stage {stage.name} packs into other rows than line {mix['line']} of the ledger says: "
            "another version of clearseek or of tokenizers made this run; trace it with that one"
        )
    held = _pack(_numbered(whole), mix, -1).tokens  # the same rows, every token replaced by its document
    begins = held >= 0
    begins[:, 1:] &= held[:, 1:] != held[:, :-1]
    row_of_piece, column = np.nonzero(begins)
    documents_of = np.concatenate(numbers)[held[row_of_piece, column]]
    return Pieces(row_of_piece, documents_of, len(rows), first)


def _pack(whole: EncodedDocuments, mix: Record, pad_id: int) -> Rows:
    return shuffled_rows(whole, int(mix["order_key"], 16), mix["sequence_length"], mix["packing"], pad_id)


def _numbered(whole: EncodedDocuments) -> EncodedDocuments:
    owners = np.repeat(np.arange(len(whole), dtype=np.int32), np.diff(whole.offsets))
    return EncodedDocuments(owners, whole.offsets, whole.num_prompt_tokens)


def _tokenizer(run_dir: Path, stage: StageReading) -> Tokenizer:
    directory = run_dir / "checkpoints" / stage.name
    if not (directory / "tokenizer.json").is_file():
        raise RunError(f"{directory} has no tokenizer: stage {stage.name} isn't finished, or was half copied")
    return Tokenizer.load(directory)
