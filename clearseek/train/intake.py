"""What a source gives a stage after its filters, with the records that say so: `filter` and `source`."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clearseek import __version__
from clearseek.config.errors import InputError, RunError
from clearseek.config.recipe import DataSource, Filters, Problems
from clearseek.data.census import census
from clearseek.data.filters import REMOVED, Outcome, code_sha256, filter_texts, mask_texts
from clearseek.ledger.lines import file_sha256
from clearseek.tasks.corpus import Example
from clearseek.text.documents import Conversation, Document, TextDocument
from clearseek.trace.kept import text_of
from clearseek.trace.problem_source import ProblemSource
from clearseek.train.context import StageContext
from clearseek.train.parallel import on_first

GENERATED_LICENCE = "CC0-1.0"  # problems that clearseek generates are given to everybody: our own statement
_STATED = ("licence", "origin", "collected", "opt_out")
_MOST_SAMPLES = 20  # of what one rule dropped
_SAMPLE_CHARACTERS = 2000


def apply_filters(
    context: StageContext, source: DataSource, index: int, documents: Sequence[Document]
) -> tuple[list[Document], list[int]]:
    """The documents that a source's filters leave, masked where they say so, and their numbers before.

    Writes a `filter` record, and at most 20 documents that each rule dropped into the run. InputError where
    `contamination` is asked for in a recipe without evaluations.
    """
    filters = source.filters
    if filters is None:
        return list(documents), list(range(len(documents)))
    items = [item for prompts in context.evaluations().values() for item in prompts]
    if filters.contamination and not items:
        raise InputError(
            f"stages.{context.stage}.data[{index}].filters.contamination: the recipe has no evaluation whose items "
            "could be looked for; leave it out, or evaluate a stage"
        )
    outcome = filter_texts([text_of(document) for document in documents], filters, items)
    kept = [documents[number] for number in outcome.kept]
    masked: dict[str, int] = {}
    if filters.personal_data == "mask":
        kept, masked = masked_documents(kept)
    path = dropped_path(context.run_dir, context.stage, index)
    rows = _samples(documents, outcome, source.path or "")
    on_first("what the filters dropped", lambda: write_rows(path, rows))
    digest = on_first("what the filters dropped", lambda: file_sha256(path))
    context.record(
        "filter",
        data=index,
        rules=_settings(filters),
        rows_in=len(documents),
        rows_out=len(kept),
        dropped={rule: len(numbers) for rule, numbers in outcome.dropped.items()},
        masked=masked,
        code_sha256=code_sha256(),
        outputs=[{"path": path.relative_to(context.run_dir).as_posix(), "sha256": digest}],
    )
    return kept, outcome.kept


def dropped_path(run_dir: Path, stage: str, index: int) -> Path:
    """Where samples lie of what the filters of a stage's `index`-th source dropped."""
    return run_dir / "data" / stage / f"{index}.dropped.jsonl"


def _settings(filters: Filters) -> dict[str, Any]:
    """The rules that are set, with what they are set to."""
    return filters.model_dump(mode="json", exclude_defaults=True)


def _samples(documents: Sequence[Document], outcome: Outcome, folder: str) -> list[dict[str, Any]]:
    """Up to 20 documents that each rule dropped, evenly apart, with personal data masked: they go into the run."""
    rows = []
    for rule, numbers in outcome.dropped.items():
        if rule == REMOVED:
            continue  # who asked for it to go does not want it shown
        step = max(-(-len(numbers) // _MOST_SAMPLES), 1)
        for number in numbers[::step]:
            (text,), _ = mask_texts([text_of(documents[number])])
            place = documents[number].place.removeprefix(folder).lstrip("/ ")
            rows.append({"rule": rule, "row": number, "place": place, "text": _shortened(text)})
    return rows


def _shortened(text: str) -> str:
    return text if len(text) <= _SAMPLE_CHARACTERS else f"{text[:_SAMPLE_CHARACTERS]} …"


def masked_documents(documents: Sequence[Document]) -> tuple[list[Document], dict[str, int]]:
    """Documents with personal data masked in every part, and how often by rule."""
    parts = [part for document in documents for part in _parts(document)]
    masked, counts = mask_texts(parts)
    left = iter(masked)
    return [_with_parts(document, lambda: next(left)) for document in documents], counts


def _parts(document: Document) -> list[str]:
    if isinstance(document, TextDocument):
        return [document.text]
    said = [text for message in document.history for name, text in message.items() if name != "role"]
    return [*said, document.thought, document.answer]


def _with_parts(document: Document, take: Callable[[], str]) -> Document:
    """The document with its parts, in the order of `_parts`, replaced by what `take` gives."""
    if isinstance(document, TextDocument):
        return replace(document, text=take())
    history = tuple(
        {name: text if name == "role" else take() for name, text in message.items()}
        for message in document.history
    )
    return replace(document, history=history, thought=take(), answer=take())


def as_documents(examples: Sequence[Example], layout: str) -> list[Document]:
    """Generated examples as documents that filters can look at and a shard can hold."""
    if layout == "document":
        return [TextDocument("\n".join(e), f"problem {number}") for number, e in enumerate(examples)]
    return [
        Conversation(({"role": "user", "content": e.prompt},), e.thought, e.answer, f"problem {number}")
        for number, e in enumerate(examples)
    ]


def record_source(
    context: StageContext, source: DataSource, index: int, name: str, fingerprint: str, texts: Sequence[str]
) -> None:
    """Write the `source` record: whose texts they are, and what is in them."""
    found = on_first("what is in a source", lambda: census(texts, context.evaluations()))
    context.record(
        "source", data=index, name=name, fingerprint=fingerprint, **_rights(context, source), **found
    )


def record_problems(context: StageContext, problems: Problems) -> None:
    """Write the `source` record of problems that a stage asks its model; only those of files can be counted."""
    rights = {key: getattr(problems, key) for key in _STATED}
    if problems.path is None and problems.gym is None:
        asked = {"languages_asked": list(problems.languages), "levels": list(problems.levels)}
        context.record("source", name="problems", what="asked", **_filled(rights, _generated()), **asked)
        return
    name = problems.path or f"reasoning-gym: {', '.join(problems.gym or [])}"
    pool = ProblemSource(problems, context.recipe.seed, context.stage).pool["train"]
    texts = ["\n".join((problem.prompt, problem.solution, problem.answer)) for problem in pool]
    found = on_first("what is in a file of problems", lambda: census(texts, context.evaluations()))
    context.record("source", name=name, what="asked", **rights, **found)


def _generated() -> dict[str, Any]:
    """The rights of problems that clearseek generates."""
    return {
        "licence": GENERATED_LICENCE,
        "origin": f"generated by clearseek {__version__}",
        "opt_out": "generated: nobody's text",
    }


def _rights(context: StageContext, source: DataSource) -> dict[str, Any]:
    """What is known of a source's rights; None for what nobody stated."""
    stated = {key: getattr(source, key) or getattr(source.problems, key, None) for key in _STATED}
    if source.problems is not None:
        return {"what": "generated"} | _filled(stated, _generated())
    if source.stage is not None:
        writer = context.recipe.stages[source.stage]
        own: dict[str, Any] = {
            "licence": getattr(writer, "licence", None),
            "origin": f"written by the model of stage {source.stage}",
            "opt_out": "generated: nobody's text",
        }
        kept = context.run_dir / "data" / f"{source.stage}.jsonl"
        digest = on_first("an earlier stage's examples", lambda: file_sha256(kept))
        return {"what": "written", "teacher": {"stage": source.stage, "sha256": digest}} | _filled(
            stated, own
        )
    teacher = None if source.teacher is None else {"name": source.teacher}
    return {"what": "dataset" if source.dataset is not None else "files", "teacher": teacher} | stated


def _filled(stated: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe states, and where it doesn't, what is known here."""
    return {key: value if value is not None else own.get(key) for key, value in stated.items()}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write tables as JSON lines, beside and renamed. RunError if that fails."""
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
        partial.replace(path)
    except OSError as error:
        raise RunError(
            f"{path} can't be written ({error.strerror or error}); make room and run the same command again"
        ) from error
