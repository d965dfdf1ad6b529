"""A source in words, in one of three languages: the columns of a table, and what there is to say of it."""

from typing import Any

from clearseek.ledger.data_words import say, say_word
from clearseek.ledger.lines import number
from clearseek.ledger.record import table, table_list
from clearseek.ledger.sources import NOT_STATED, SourceRecord, count, language_shares, worst_overlap

_NBSP = "\u00a0"


def headings(language: str = "en") -> list[str]:
    """The columns that `table_row` fills."""
    return say("headings", language).split("|")


def table_row(source: SourceRecord, language: str = "en") -> list[str]:
    """One source under the headings; a dash for what cannot be counted."""
    record = source.source
    what = say_word("what", str(record.get("what")), language)
    first = [source.id, what, licence_words(source, language)]
    if record.get("rows") is None:
        return [*first, *["–"] * 6]
    return [
        *first,
        rows_words(source, language),
        size(count(record.get("bytes"))),
        languages_words(record),
        repeats_words(record, language),
        personal_words(record, language),
        overlap_words(record, language),
    ]


def licence_words(source: SourceRecord, language: str = "en") -> str:
    """The licence by its id, or that it is not stated."""
    return say("not_stated", language) if source.licence == NOT_STATED else source.licence


def rows_words(source: SourceRecord, language: str = "en") -> str:
    """How many documents, and of how many where filters dropped some."""
    rows = count(source.source.get("rows"))
    before = count((source.filter or {}).get("rows_in"))
    return say("rows", language, rows=f"{rows:,}", before=f"{before:,}") if before > rows else f"{rows:,}"


def size(num_bytes: int) -> str:
    """`950 B`, `12.3 KB`, `4.0 MB`: thousands, as disks are sold."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f}{_NBSP}{name}"
    return f"{num_bytes}{_NBSP}B"


def languages_words(record: dict[str, Any]) -> str:
    """`en 60 %, ko 40 %`, by documents; the smallest are said to be under 1 %."""
    shares = ((name, f"{share:.0%}" if share >= 0.01 else "<1%") for name, share in language_shares(record))
    return ", ".join(f"{name}{_NBSP}{share}" for name, share in shares) or "–"


def repeats_words(record: dict[str, Any], language: str = "en") -> str:
    """Exact repeats, and near ones besides."""
    repeats = table(record.get("duplicates"))
    exact, near = (f"{count(repeats.get(name)):,}" for name in ("exact", "near"))
    return say("repeats", language, exact=exact, near=near)


def personal_words(record: dict[str, Any], language: str = "en") -> str:
    """What was found by rule."""
    found = table(record.get("personal_data"))
    return ", ".join(f"{rule} {count(times):,}" for rule, times in found.items()) or say(
        "none_found", language
    )


def overlap_words(record: dict[str, Any], language: str = "en") -> str:
    """Items of evaluations: whole ones, and others that share 13 words in a row."""
    if not table(record.get("contamination")):
        return say("no_evaluation", language)
    whole, overlapping, items = worst_overlap(record)
    return say("items", language, whole=f"{whole:,}", part=f"{overlapping - whole:,}", items=f"{items:,}")


def findings(source: SourceRecord, language: str = "en") -> list[str]:
    """What whoever looks should know first: no licence, a model's words, personal data, whole evaluation items."""
    record = source.source
    found = []
    if source.licence == NOT_STATED:
        found.append(say("finding.licence", language))
    if name := table(record.get("teacher")).get("name"):
        found.append(say("finding.teacher", language, name=name))
    if table(record.get("personal_data")):
        found.append(say("finding.personal", language, found=personal_words(record, language)))
    for name, value in table(record.get("contamination")).items():
        each = table(value)
        if count(each.get("whole")):
            texts = [str(one.get("item")) for one in table_list(each.get("samples"))[:3] if one.get("whole")]
            numbers = {key: f"{count(each.get(key)):,}" for key in ("whole", "items")}
            found.append(say("finding.items", language, name=name, texts=" / ".join(texts), **numbers))
    return found


def teacher_words(teacher: dict[str, Any], language: str = "en") -> str:
    """Who wrote a stage's examples, in a sentence."""
    model, sampling = table(teacher.get("model")), table(teacher.get("sampling"))
    return say(
        "teacher",
        language,
        examples=teacher.get("examples"),
        rows=f"{count(teacher.get('rows')):,}",
        model=model.get("stage") or model.get("path"),
        sha=str(model.get("sha256"))[:12],
        moving=say("teacher.moving", language) if teacher.get("while_training") else "",
        temperature=f"{number(sampling.get('temperature')) or 0:g}",
        samples=sampling.get("samples"),
        licence=teacher.get("licence") or say("not_stated", language),
    )
