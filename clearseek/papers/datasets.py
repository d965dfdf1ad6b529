"""A run's data sets as files: what stages trained on, what they kept, and the problems of its evaluations."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clearseek.config.errors import InputError, RunError
from clearseek.config.recipe import DataSource, Evaluation
from clearseek.ledger.record import Record, table, table_list
from clearseek.papers.facts import RunFacts, Source
from clearseek.papers.licences import is_open
from clearseek.tasks.corpus import Example
from clearseek.text.documents import Conversation, Document, TextDocument
from clearseek.trace.kept import documents_sha256, generate_examples, read_shard, shard_path, text_of
from clearseek.trace.problem_source import ProblemSource

_ANSWERS = "What the model of stage {} answered, checked by program and kept."
EVALUATION_LICENCE = "CC0-1.0"  # of problems that clearseek generates; of others as their file's owner says
_TEXT = {"text": "the whole document"}
_EXAMPLE = {
    "prompt": "what is asked; of a longer conversation its messages as JSON",
    "thought": "the thinking before the answer",
    "answer": "the answer",
}
_PROBLEM = {
    "id": "16 hex digits of a hash over content and verifier",
    "task": "the family of problems",
    "language": "en, ko or zh",
    "prompt": "what is asked",
    "answer": "the answer that counts as right",
    "verifier": "the program that compares answers",
}


@dataclass(frozen=True)
class DataFile:
    """One data set's file below the papers' directory; `fields` are those of its rows, with what they hold."""

    title: str
    path: str
    sha256: str
    bytes: int
    rows: int
    fields: Mapping[str, str]
    licence: str | None
    about: str
    source: Source | None = None  # None where no stage read it
    is_evaluation: bool = False


@dataclass(frozen=True)
class Absent:
    """A data set that is not given away, and `why`; `sha256` is over its documents, or None where none is on record."""

    title: str
    why: str
    sha256: str | None
    rows: int | None
    licence: str | None
    about: str
    source: Source | None = None
    is_evaluation: bool = False

    @property
    def line(self) -> str:
        """What documents say of it."""
        return f"{self.title}: {self.why}"


def write_datasets(facts: RunFacts, out: Path) -> tuple[list[DataFile], list[Absent]]:
    """Write every data set that may be given away into `out`/data, and say of each other one why it is not there.

    Only what is under an open licence is copied. What is written is held to the hash in the ledger; RunError where it
    is not what was trained on.
    """
    (out / "data").mkdir(parents=True, exist_ok=True)
    files: list[DataFile] = []
    absent: list[Absent] = []
    for wanted in _wanted(facts, out):
        if not is_open(wanted.licence):
            absent.append(wanted.absent(f"not copied, since its licence is {wanted.licence or 'not stated'}"))
            continue
        try:
            files.append(wanted.make())
        except (_NotHere, InputError) as error:
            absent.append(wanted.absent(str(error)))
    return files, absent


@dataclass(frozen=True)
class Wanted:
    """A data set that papers should hold, and what writes its file."""

    title: str
    licence: str | None
    make: Callable[[], DataFile]
    about: str
    source: Source | None = None
    sha256: str | None = None
    is_evaluation: bool = False

    def absent(self, why: str) -> Absent:
        """The same where it can't be given, or may not."""
        rows = self.source.rows if self.source else None
        return Absent(
            self.title, why, self.sha256, rows, self.licence, self.about, self.source, self.is_evaluation
        )


def _wanted(facts: RunFacts, out: Path) -> Iterator[Wanted]:
    for source in facts.sources:
        # what is asked is drawn by code and seed as the stage goes; what came of it is kept
        if source.what != "asked" and source.kept != "stage":
            make, about = partial(_write_documents, facts, out, source), _about(source)
            yield Wanted(source.title, source.licence, make, about, source, source.documents_sha256)
    yield from _kept_answers(facts, out)
    yield from _evaluations(facts, out)


class _NotHere(Exception):
    """Why a data set can't be given."""


def _documents(facts: RunFacts, source: Source) -> list[Document | Example]:
    stage = facts.record.stage(source.stage)
    assert stage is not None
    assert source.index is not None
    if source.kept is None:
        raise _NotHere("an older clearseek made the run and kept no documents")
    if source.kept == "generated":
        stated = (table_list(stage.config.get("data")) or table_list(stage.config.get("sft_data")))[
            source.index
        ]
        found: list[Document | Example] = list(
            generate_examples(
                _table(DataSource, stated), int(facts.record.run["seed"]), source.stage, source.index
            )
        )
    elif source.kept == "shard":
        found = list(read_shard(shard_path(facts.run, source.stage, source.index)))
    else:
        raise _NotHere("too large to be kept in the run; it is named by hash only")
    if documents_sha256(map(text_of, found)) != source.documents_sha256:
        raise RunError(
            f"{facts.run}: source {source.index} of stage {source.stage} is not what was trained on: another "
            "version of clearseek generates otherwise; use the one that made the run"
        )
    return found


def _table(kind: Any, stated: Record) -> Any:
    try:
        return kind.model_validate(stated)
    except ValidationError as error:
        raise RunError(f"the run's recipe is of a newer clearseek ({error.errors()[0]['msg']})") from None


def _write_documents(facts: RunFacts, out: Path, source: Source) -> DataFile:
    rows = [_row(document) for document in _documents(facts, source)]
    fields = {
        name: _TEXT.get(name) or _EXAMPLE[name] for name in dict.fromkeys(key for row in rows for key in row)
    }
    return _write(out, source.title, rows, fields, source.licence, _about(source), source)


def _about(source: Source) -> str:
    by = f", written by the model {source.written_by}" if source.written_by else ""
    return f"What stage {source.stage} trained on ({source.what}{by})."


def _row(document: Document | Example) -> dict[str, str]:
    if isinstance(document, TextDocument):
        return {"text": document.text}
    if isinstance(document, Conversation):
        history = list(document.history)
        alone = len(history) == 1 and history[0].get("role") == "user"
        prompt = history[0]["content"] if alone else json.dumps(history, ensure_ascii=False)
        return {"prompt": prompt, "thought": document.thought, "answer": document.answer}
    return dict(document._asdict())


def _kept_answers(facts: RunFacts, out: Path) -> Iterator[Wanted]:
    """Answers that a stage's model gave and that were kept, as they lie in the run."""
    read = {source.teacher: source for source in reversed(facts.sources) if source.kept == "stage"}
    for stage in facts.record.stages:
        path = f"data/{stage.name}.jsonl"
        has_rows = path in facts.hashes and (facts.run / path).stat().st_size > 0
        if has_rows or stage.name in read:
            source = read.get(stage.name)
            licence = source.licence if source else _licence_of_answers(facts, stage.name)
            make, about = (
                partial(_write_answers, facts, out, stage.name, licence, source),
                _ANSWERS.format(stage.name),
            )
            yield Wanted(stage.name, licence, make, about, source, facts.hashes.get(path))


def _write_answers(
    facts: RunFacts, out: Path, stage: str, licence: str | None, source: Source | None
) -> DataFile:
    path = f"data/{stage}.jsonl"
    if path not in facts.hashes:
        raise _NotHere(f"stage {stage} left no file")
    rows = [json.loads(line) for line in (facts.run / path).read_text(encoding="utf-8").splitlines()]
    return _write(out, stage, rows, _EXAMPLE, licence, _ANSWERS.format(stage), source)


def _licence_of_answers(facts: RunFacts, stage: str) -> str | None:
    """As the stage's table states it, else that of the problems which were answered."""
    record = facts.record.stage(stage)
    stated = record.config.get("licence") if record else None
    return stated or next((source.licence for source in facts.sources if source.title == stage), None)


def _evaluations(facts: RunFacts, out: Path) -> Iterator[Wanted]:
    tables = {"evaluation": table(facts.recipe.get("evaluation"))}
    for name, stage in table(facts.recipe.get("stages")).items():
        if table(stage).get("evaluation"):
            tables[f"evaluation-{name}"] = table(stage["evaluation"])
    for title, stated in tables.items():
        evaluation: Evaluation = _table(Evaluation, stated)
        chosen = evaluation.problems
        is_generated = chosen.path is None and chosen.gym is None
        licence = chosen.licence or (EVALUATION_LICENCE if is_generated else None)
        make = partial(_write_evaluation, facts, out, title, evaluation, licence)
        yield Wanted(title, licence, make, _about_evaluation(evaluation), is_evaluation=True)


def _about_evaluation(evaluation: Evaluation) -> str:
    by_hash = evaluation.problems.held_out_path is None
    return f"Held-out problems, chosen {'by the hash of their content' if by_hash else 'from a file of their own'}."


def _write_evaluation(
    facts: RunFacts, out: Path, title: str, evaluation: Evaluation, licence: str | None
) -> DataFile:
    source = ProblemSource(evaluation.problems, int(facts.record.run["seed"]), "evaluation")
    rows = [
        {
            "id": problem.id,
            "task": problem.family,
            "language": problem.language,
            "prompt": problem.prompt,
            "answer": problem.answer,
            "verifier": problem.verifier.rpartition("/")[2],  # whose folder it lies in is nobody's matter
        }
        for problem in source.held_out(evaluation.count)
    ]
    return replace(
        _write(out, title, rows, _PROBLEM, licence, _about_evaluation(evaluation), None), is_evaluation=True
    )


def _write(
    out: Path,
    title: str,
    rows: Iterable[Mapping[str, str]],
    fields: Mapping[str, str],
    licence: str | None,
    about: str,
    source: Source | None,
) -> DataFile:
    path = f"data/{title}.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    content = "".join(lines).encode("utf-8", "backslashreplace")
    (out / path).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return DataFile(title, path, digest, len(content), len(lines), fields, licence, about, source)
