"""Where a document of a source came from: the line of a run's file that it stands in, without reading the others."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np

from clearseek.config.errors import InputError, RunError
from clearseek.text.documents import Document, document_from_row
from clearseek.trace.kept import ADDED_FIELDS, is_regenerated, shard_path, text_of
from clearseek.trace.sources import RunReadings, StageReading, source_documents


class Places:
    """The places of one source's documents. What isn't in lines of a file of the run is read whole, once."""

    def __init__(self, readings: RunReadings, stage: StageReading, source: int) -> None:
        self._readings, self._stage, self._source = readings, stage, source
        table, kept = stage.sources[source], stage.data[source].get("kept")
        self._is_regenerated = is_regenerated(table)
        self._is_shard = kept == "shard"
        self._file: Path | None = None
        if self._is_shard:
            self._file = shard_path(readings.run_dir, stage.name, source)
        elif kept == "stage" and not table.hold_out_every:
            self._file = readings.run_dir / "data" / f"{table.stage}.jsonl"

    def of(self, document: int, text: str) -> str:
        """The place of a document, whose text is known. RunError where it isn't what the run has there."""
        if self._is_regenerated:
            return f"problem {document + 1}"  # to make them all again for this would take seconds
        if self._file is None:
            return self._documents[document].place
        found = self._in_line(self._file, document)
        if found is None or text_of(found) != text:
            raise RunError(
                f"{self._file}: document {document + 1} is not the one that stage {self._stage.name} trained on: "
                "the file was changed, or the run was half copied"
            )
        return found.place

    def _in_line(self, path: Path, document: int) -> Document | None:
        """What the `document`-th line that isn't blank has; None where it has none."""
        try:
            number, start, end = (int(at) for at in self._lines[document])
            with path.open("rb") as file:
                file.seek(start)
                row = json.loads(file.read(end - start))
            place = str(row["place"]) if self._is_shard else f"{path} line {number}"
            return document_from_row(row, place, ADDED_FIELDS if self._is_shard else ())
        except (InputError, OSError, ValueError, IndexError, KeyError, TypeError):
            return None

    @cached_property
    def _lines(self) -> np.ndarray:
        """Number, start and end of every line that isn't blank, int64 [documents, 3]."""
        assert self._file is not None
        found, start = [], 0
        with self._file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    found.append((number, start, start + len(line)))
                start += len(line)
        return np.array(found, np.int64).reshape(-1, 3)

    @cached_property
    def _documents(self) -> list[Document]:
        return source_documents(self._readings, self._stage, self._source)  # type: ignore[return-value]
