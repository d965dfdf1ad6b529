"""Sources in columns, whose libraries are an extra: Parquet files, and data sets of a hub by name."""

import hashlib
import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from clearseek.config.errors import InputError, RunError
from clearseek.text.documents import Document, document_from_row
from clearseek.text.sources import Source, hash_file

_ROWS_PER_BATCH = 1024
# By exact name: a connection that breaks off raises a kind of ConnectionError too, and may be tried again.
_NO_CONNECTION = {
    "ConnectError",
    "ConnectTimeout",
    "ConnectionError",
    "ConnectionRefusedError",
    "OfflineModeIsEnabled",
}


class ParquetSource(Source):
    """The rows of a Parquet file, in any layout that `document_from_row` knows."""

    def __init__(self, path: Path, ignored_fields: tuple[str, ...] = ()) -> None:
        """Raises InputError where there is no such file."""
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        self.path, self.ignored_fields = path, ignored_fields
        self.name = str(path)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the file's bytes."""
        return hash_file(self.path)

    def documents_by_group(self) -> Iterator[tuple[str, Document]]:
        """The rows' documents, all in one group."""
        pyarrow, parquet = _pyarrow(self.path)
        number = 0
        try:
            with parquet.ParquetFile(self.path) as table:
                columns = _columns(table.schema_arrow.names, self.ignored_fields, self.name)
                for batch in table.iter_batches(_ROWS_PER_BATCH, columns=columns):
                    for row in batch.to_pylist():
                        number += 1
                        yield "", document_from_row(_without_nulls(row), f"{self.path} row {number}")
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{self.path}: not a whole Parquet file ({_one_line(error)})") from error


class HuggingFaceSource(Source):
    """The rows of a data set of the Hugging Face hub, downloaded once into the library's own cache."""

    def __init__(self, name: str, split: str = "train", ignored_fields: tuple[str, ...] = ()) -> None:
        """`name` is `org/name` or `org/name:config`; the download waits for the first document."""
        self.name, self.split_name, self.ignored_fields = name, split, ignored_fields

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the rows."""
        digest = hashlib.sha256()
        for row in self._rows:
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=True, default=repr).encode())
        return digest.hexdigest()

    def documents_by_group(self) -> Iterator[tuple[str, Document]]:
        """The rows' documents, all in one group."""
        rows = self._rows.select_columns(_columns(self._rows.column_names, self.ignored_fields, self.name))
        for number, row in enumerate(rows, 1):
            yield "", document_from_row(_without_nulls(row), f"{self.name} row {number}")

    @cached_property
    def _rows(self) -> Any:
        library = _datasets(self.name)
        path, _, config = self.name.partition(":")
        try:
            return library.load_dataset(path, config or None, split=self.split_name)
        except KeyboardInterrupt:
            raise
        except Exception as error:  # the library lets its transports' errors through, each of another family
            raise _download_error(self.name, error) from error


def _download_error(name: str, error: Exception) -> InputError | RunError:
    """What a failed download means: no way to the hub, a name that is wrong, or a transfer that broke off."""
    kinds = {type(link).__name__ for link in _chain(error)}
    if kinds & _NO_CONNECTION:
        return InputError(
            f"data set {name!r}: the hub can't be reached; connect, or download it elsewhere "
            "and give the .parquet or .jsonl file itself"
        )
    if "DatasetNotFoundError" in kinds or isinstance(error, ValueError):
        return InputError(f"data set {name!r}: {_one_line(error)}")
    return RunError(
        f"data set {name!r}: the download broke off ({_one_line(error)}); run again to go on where it stopped"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _pyarrow(path: Path) -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{path}: reading Parquet needs an extra: pip install 'clearseek[data]'") from None
    return pyarrow, pyarrow.parquet


def _datasets(name: str) -> ModuleType:
    # The libraries report use to the hub unless told not to before they are imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"data set {name!r}: the hub needs an extra: pip install 'clearseek[data]'"
        ) from None
    module: ModuleType = datasets
    return module


def _columns(names: list[str], ignored: tuple[str, ...], place: str) -> list[str]:
    """The columns to read; an ignored one must be there."""
    for name in ignored:
        if name not in names:
            raise InputError(f"{place}: no field {name!r} to ignore; it has {', '.join(names)}")
    return [name for name in names if name not in ignored]


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """Columns are shared by all rows; a null is a field that this row doesn't have."""
    return {name: value for name, value in row.items() if value is not None}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
