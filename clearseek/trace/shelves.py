"""What a run's models have read, opened for searching: a shelf for each source, and one for each stage's rollouts.

A shelf's index is kept by what it holds (see `index.py`); where it isn't there it is built, which `note` announces.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from clearseek.config.errors import RunError
from clearseek.tasks.corpus import Example
from clearseek.text.documents import Document
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.index import Index, build_index, index_directory, open_index
from clearseek.trace.kept import text_of
from clearseek.trace.places import Places
from clearseek.trace.rollouts import StoredRollouts, open_rollouts
from clearseek.trace.sources import Record, RunReadings, StageReading, run_readings, source_documents
from clearseek.trace.steps import DocumentSteps, Pieces, find_pieces
from clearseek.trace.unread import UnreadShelf, unread_sources

Note = Callable[[str], None]


@dataclass(frozen=True)
class Use:
    """A stage's reading of a source; `first` is the number of its first document among all of the stage."""

    stage: StageReading
    source: int
    first: int
    steps: DocumentSteps


@dataclass
class SourceShelf:
    """The documents of one source, which several stages may have read."""

    index: Index
    uses: list[Use]
    readings: RunReadings

    @cached_property
    def places(self) -> Places:
        """Where each document came from."""
        return Places(self.readings, self.uses[0].stage, self.uses[0].source)

    def about(self, document: int) -> Record:
        """Where a document came from, by whose leave it is used, and who wrote it."""
        use = self.uses[0]
        origin = use.stage.origins.get(use.source, {})
        return {
            "place": self.places.of(document, self.index.text(document)),
            "source": str(origin.get("name") or use.stage.data[use.source].get("source")),
            "licence": str(origin.get("licence") or "not stated"),
            "teacher": self.readings.teacher_of(use.stage.sources[use.source].stage)
            or next(filter(None, (one.stage.stated_teacher(one.source) for one in self.uses)), None),
        }

    def seen(self, document: int) -> list[Record]:
        """By whom a document was read: stage, its name there, and the steps with their learning rates."""
        return [
            _seen(use.stage, f"{use.source}/{document}", use.steps.of(use.first + document))
            for use in self.uses
        ]


@dataclass
class RolloutShelf:
    """What a stage of reinforcement learning wrote itself, by step, and learnt from where `learnt` says so."""

    index: Index
    stage: StageReading
    rollouts: StoredRollouts
    readings: RunReadings

    def about(self, document: int) -> Record:
        """The step and the problem that a completion was written at, and its verdict."""
        step, verdict, _ = self.rollouts.at(document)
        return {
            "place": f"step {step}, judged {verdict}",
            "source": f"rollouts of {self.stage.name}",
            "licence": str((self.stage.teacher or {}).get("licence") or "not stated"),
            "teacher": self.readings.teacher_of(self.stage.name),
        }

    def seen(self, document: int) -> list[Record]:
        """The step that learnt from a completion; none where it was judged and put aside."""
        step, _, learnt = self.rollouts.at(document)
        return [_seen(self.stage, f"rollout/{document}", [step] if learnt else [])]


Shelf = SourceShelf | RolloutShelf | UnreadShelf


def _seen(stage: StageReading, number: str, steps: Sequence[int]) -> Record:
    return {
        "document": f"{stage.name}/{number}",
        "stage": stage.name,
        "kind": stage.kind,
        "steps": list(steps),
        "learning_rates": [stage.learning_rates[step] for step in steps],
    }


def open_shelves(readings: RunReadings, note: Note, sampled: bool = False) -> list[Shelf]:
    """All that the stages of a run read and wrote; the same documents stand on one shelf.

    With `sampled` also the answers that its models were asked for and that no step learnt from.
    """
    shelves: dict[str, SourceShelf] = {}
    for stage in readings.stages:
        _shelve_sources(readings, stage, shelves, note)
    stages = [*readings.stages, *readings.others]
    written = (_shelve_rollouts(readings, stage, note) for stage in stages if stage.kind == "rl")
    trained = {name: shelf.index for name, shelf in shelves.items()}

    def open_or_build(name: str, texts: Callable[[], list[str]]) -> Index:
        return open_index(name) or _build(name, texts(), note)

    unread = (each.shelf(trained, open_or_build) for each in unread_sources(readings, trained, sampled))
    return [
        *shelves.values(),
        *(shelf for shelf in written if shelf is not None),
        *(shelf for shelf in unread if len(shelf.index)),
    ]


@dataclass(frozen=True)
class Indexed:
    """What the indexes of a run hold, and how long it took until all were there."""

    documents: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        """In one line."""
        if not self.documents:
            return "no stage of this run read or wrote documents: there is nothing to index"
        return f"indexed for tracing: {self.documents:,} documents, {self.bytes:,} bytes, in {self.seconds:.1f} s"


def build_indexes(run_dir: Path, note: Note, sampled: bool = False) -> Indexed:
    """Build what `open_shelves` opens, where it is not kept yet, so that the run's first trace finds it there.

    InputError where there is no run, RunError where its documents are damaged or the disk refuses.
    """
    started = time.perf_counter()
    arrays = [shelf.index for shelf in open_shelves(run_readings(run_dir), note, sampled)]
    seconds = time.perf_counter() - started
    return Indexed(sum(map(len, arrays)), sum(len(index.array.text) for index in arrays), seconds)


def _shelve_sources(
    readings: RunReadings, stage: StageReading, shelves: dict[str, SourceShelf], note: Note
) -> None:
    """Add a stage's sources. Its documents are read only where an index or the place of its pieces is not kept."""
    kept: list[list[Document | Example]] = []

    def documents() -> list[list[Document | Example]]:
        if not kept:
            note(f"reading what stage {stage.name} trained on")
            kept.extend(source_documents(readings, stage, i) for i in range(len(stage.data)))
        return kept

    steps = DocumentSteps(_kept_pieces(readings, stage, documents), readings, stage)
    first = 0
    for number, record in enumerate(stage.data):
        name = str(record.get("documents_sha256"))
        if name not in shelves:
            index = open_index(name)
            if index is None:
                index = _build(name, map(text_of, documents()[number]), note)
            shelves[name] = SourceShelf(index, [], readings)
        shelves[name].uses.append(Use(stage, number, first, steps))
        first += len(shelves[name].index)


def _build(name: str, texts: Iterable[str], note: Note) -> Index:
    found = list(texts)
    note(f"indexing {len(found):,} documents")
    return build_index(name, found)


def _kept_pieces(
    readings: RunReadings, stage: StageReading, documents: Callable[[], list[list[Document | Example]]]
) -> Pieces:
    """Where a stage's documents lie in its rows, as found before, or found now and kept."""
    assert stage.mix is not None
    hashes = [stage.mix["rows_sha256"], *(record.get("documents_sha256") for record in stage.data)]
    name = hashlib.sha256(" ".join(map(str, hashes)).encode()).hexdigest()
    path = index_directory(f"rows-{name}").with_suffix(".npz")
    try:
        with np.load(path) as kept:
            pieces = Pieces(
                kept["rows"], kept["documents"], int(kept["num_rows"]), int(kept["num_documents"])
            )
            if bytes(kept["sha256"]) == _pieces_hash(pieces):
                return pieces
    except (OSError, ValueError, KeyError, EOFError):
        pass  # not kept yet, or damaged: it is made again
    pieces = find_pieces(readings, stage, documents())
    _keep_pieces(path, pieces)
    return pieces


def _pieces_hash(pieces: Pieces) -> bytes:
    digest = hashlib.sha256(f"{pieces.num_rows} {pieces.num_documents}".encode())
    digest.update(np.ascontiguousarray(pieces.rows).data)
    digest.update(np.ascontiguousarray(pieces.documents).data)
    return digest.digest()


def _keep_pieces(path: Path, pieces: Pieces) -> None:
    partial = path.with_name(f".{path.name}.partial.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            partial,
            rows=pieces.rows,
            documents=pieces.documents,
            num_rows=pieces.num_rows,
            num_documents=pieces.num_documents,
            sha256=np.frombuffer(_pieces_hash(pieces), np.uint8),
        )
        partial.replace(path)
    except OSError as error:
        raise RunError(
            f"{path}: can't be kept ({error.strerror}); make room, or set XDG_CACHE_HOME"
        ) from error


def _shelve_rollouts(readings: RunReadings, stage: StageReading, note: Note) -> RolloutShelf | None:
    rollouts = open_rollouts(readings.run_dir, stage)
    if rollouts is None:
        return None
    tokenizer = readings.run_dir / "checkpoints" / stage.name
    index = open_index(rollouts.name)
    if index is None:
        index = _build(rollouts.name, rollouts.texts(Tokenizer.load(tokenizer)), note)
    return RolloutShelf(index, stage, rollouts, readings)
