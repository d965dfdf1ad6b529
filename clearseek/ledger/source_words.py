"""A source in words: the columns of a table, and what there is to say of it."""

from typing import Any

from clearseek.ledger.record import table, table_list
from clearseek.ledger.sources import NOT_STATED, SourceRecord, language_shares, worst_overlap

HEADINGS = (
    "source",
    "what",
    "licence",
    "rows",
    "size",
    "languages",
    "repeats",
    "personal data",
    "evaluation items",
)
WHAT = {
    "generated": "generated problems",
    "asked": "problems asked",
    "files": "files",
    "dataset": "data set",
    "written": "a model's examples",
}


def table_row(source: SourceRecord) -> list[str]:
    """One source under the headings; a dash for what cannot be counted."""
    record = source.source
    what = WHAT.get(str(record.get("what")), str(record.get("what")))
    if record.get("rows") is None:
        return [source.id, what, source.licence, *["–"] * 6]
    return [
        source.id,
        what,
        source.licence,
        rows_words(source),
        size(record.get("bytes") or 0),
        languages_words(record),
        repeats_words(record),
        personal_words(record),
        overlap_words(record),
    ]


def rows_words(source: SourceRecord) -> str:
    """How many documents, and of how many where filters dropped some."""
    rows = f"{source.source.get('rows') or 0:,}"
    before = (source.filter or {}).get("rows_in")
    return rows if before in (None, source.source.get("rows")) else f"{rows} of {before:,}"


def size(num_bytes: int) -> str:
    """`950 B`, `12.3 KB`, `4.0 MB`: thousands, as disks are sold."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes} B"


def languages_words(record: dict[str, Any]) -> str:
    """`en 60 %, ko 40 %`, by documents; the smallest are said to be under 1 %."""
    shares = language_shares(record)
    return ", ".join(f"{name} {f'{share:.0%}' if share >= 0.01 else '<1%'}" for name, share in shares) or "–"


def repeats_words(record: dict[str, Any]) -> str:
    """Exact repeats, and near ones besides."""
    repeats = table(record.get("duplicates"))
    return f"{repeats.get('exact') or 0:,} + {repeats.get('near') or 0:,} near"


def personal_words(record: dict[str, Any]) -> str:
    """What was found by rule."""
    found = table(record.get("personal_data"))
    return ", ".join(f"{rule} {count:,}" for rule, count in found.items()) or "none found"


def overlap_words(record: dict[str, Any]) -> str:
    """Items of evaluations: whole ones, and others that share 13 words in a row."""
    if not table(record.get("contamination")):
        return "no evaluation"
    whole, overlapping, items = worst_overlap(record)
    return f"{whole:,} whole, {overlapping - whole:,} in part, of {items:,}"


def findings(source: SourceRecord) -> list[str]:
    """What whoever looks should know first: no licence, personal data, whole evaluation items."""
    record = source.source
    found = []
    if source.licence == NOT_STATED:
        found.append("the licence is not stated (licence in the recipe, as an SPDX id)")
    if table(record.get("personal_data")):
        found.append(f"personal data by rule: {personal_words(record)} (filters = {{ personal_data = ... }})")
    for name, each in table(record.get("contamination")).items():
        if each.get("whole"):
            items = [str(one["item"]) for one in table_list(each.get("samples"))[:3] if one.get("whole")]
            found.append(
                f"{each['whole']:,} of {each['items']:,} items of {name} stand in it: {' / '.join(items)}"
            )
    return found


def teacher_words(teacher: dict[str, Any]) -> str:
    """Who wrote a stage's examples, in a sentence."""
    model, sampling = table(teacher.get("model")), table(teacher.get("sampling"))
    writer = f"the model of {model.get('stage') or model.get('path')} ({str(model.get('sha256'))[:12]}…)"
    how = f"temperature {sampling.get('temperature'):g}, {sampling.get('samples')} a problem"
    moving = ", as it changed over the stage," if teacher.get("while_training") else ""
    licence = teacher.get("licence") or NOT_STATED
    written = f"{teacher['examples']}: {teacher['rows']:,} examples written by {writer}{moving}"
    return f"{written} at {how}; licence {licence}"
