"""The data of a run as HTML: a section of its report, and a page of its own to browse documents in.

Both read the same view; everything that others wrote is escaped by the template.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from clearseek.config.errors import InputError
from clearseek.ledger import source_words
from clearseek.ledger.record import Record, RunRecord, table, table_list
from clearseek.ledger.sources import NOT_STATED, SourceRecord, dropped_samples, language_shares, sources_of

_DATA_LANGUAGES = {"zh": "zh-Hans", "ko": "ko"}


def data_section(record: RunRecord) -> str:
    """The section of the report: a table of sources, "" for a run that recorded none (yet)."""
    try:
        found = sources_of(record)
    except InputError:
        return ""
    return _render("section", view=_view(found, record))


def data_page(
    record: RunRecord, chosen: Sequence[SourceRecord], documents: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    """The whole page; `documents` are some of each source's by its id: row, place and text."""
    view = _view(chosen, record)
    for each, source in zip(view["sources"], chosen, strict=True):
        each["documents"] = documents.get(source.id, ())
        each["dropped"] = _by_rule(dropped_samples(record, source))
    return _render("page", view=view, style=_part("page.css") + _part("data.css"), record=record)


def _view(chosen: Sequence[SourceRecord], record: RunRecord) -> dict[str, Any]:
    rows = {each.id: int(each.source.get("rows") or 0) for each in chosen}
    unstated = sum(rows[each.id] for each in chosen if each.licence == NOT_STATED)
    licences = sorted({each.licence for each in chosen} - {NOT_STATED})
    return {
        "headings": source_words.HEADINGS,
        "sources": [_source(each) for each in chosen],
        "teachers": [source_words.teacher_words(t) for stage in record.stages for t in stage.teachers],
        "total": f"{sum(rows.values()):,}",
        "licences": ", ".join(licences) or "none",
        "unstated": f"; {unstated:,} of them have none stated" if unstated else "",
    }


def _source(each: SourceRecord) -> dict[str, Any]:
    record = each.source
    return {
        "id": each.id,
        "anchor": each.id.replace("/", "-"),
        "row": source_words.table_row(each),
        "findings": source_words.findings(each),
        "languages": language_shares(record),
        "facts": _facts(each),
        "filter": each.filter,
        "overlaps": [(name, table(found)) for name, found in table(record.get("contamination")).items()],
    }


def _facts(each: SourceRecord) -> list[tuple[str, str]]:
    """What is stated and known of a source, name by name."""
    record = each.source
    names = (("Name", "name"), ("Origin", "origin"), ("Collected", "collected"), ("Opt-out", "opt_out"))
    facts = [(title, str(record.get(key) or "not stated")) for title, key in names]
    facts.insert(1, ("Licence", each.licence))
    if record.get("fingerprint"):
        facts.append(("SHA-256", str(record["fingerprint"])))
    if each.kept:
        facts.append(("Kept", _KEPT.get(each.kept, each.kept)))
    return facts


_KEPT = {
    "shard": "document by document in the run",
    "stage": "in the run, as an earlier stage left it",
    "generated": "as recipe and seed, which make it again",
    "reference": "not in the run, for its size; read again where it came from",
}


def _by_rule(samples: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    grouped: dict[str, list[Record]] = {}
    for sample in samples:
        grouped.setdefault(str(sample.get("rule")), []).append(sample)
    return list(grouped.items())


def _render(block: str, **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["tables"] = table_list
    template = environment.from_string(_part("data.html.jinja"))
    macro = getattr(template.make_module(), block)
    return str(macro(**values))


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
