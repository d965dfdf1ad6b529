"""The data of a run as HTML: a section of its report, and a page of its own to browse documents in.

Both read the same view; everything that others wrote is escaped by the template.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import resources
from typing import Any

from clearseek.config.errors import InputError
from clearseek.ledger import source_words
from clearseek.ledger.data_words import HTML_LANGUAGES, say, say_word
from clearseek.ledger.record import Record, RunRecord, table
from clearseek.ledger.sources import (
    NOT_STATED,
    SourceRecord,
    count,
    dropped_samples,
    language_shares,
    sources_of,
)


def data_section(record: RunRecord) -> str:
    """The section of the report: a table of sources, "" for a run that recorded none (yet)."""
    try:
        found = sources_of(record)
    except InputError:
        return ""
    return _render("section", view=_view(found, record))


def data_page(
    record: RunRecord,
    chosen: Sequence[SourceRecord],
    documents: Mapping[str, Sequence[Mapping[str, Any]]],
    language: str = "en",
) -> str:
    """The whole page in en, ko or zh; `documents` are some of each source's by its id: row, place and text."""
    view = _view(chosen, record, language)
    for each, source in zip(view["sources"], chosen, strict=True):
        each["documents"] = documents.get(source.id, ())
        each["dropped"] = _by_rule(dropped_samples(record, source))
    style = _part("page.css") + _part("data.css")
    return _render("page", language, view=view, style=style, record=record, lang=HTML_LANGUAGES[language])


def _view(chosen: Sequence[SourceRecord], record: RunRecord, language: str = "en") -> dict[str, Any]:
    rows = {each.id: count(each.source.get("rows")) for each in chosen}
    unstated = sum(rows[each.id] for each in chosen if each.licence == NOT_STATED)
    licences = sorted({each.licence for each in chosen} - {NOT_STATED})
    teachers = [teacher for stage in record.stages for teacher in stage.teachers]
    return {
        "headings": source_words.headings(language),
        "sources": [_source(each, language) for each in chosen],
        "teachers": [source_words.teacher_words(teacher, language) for teacher in teachers],
        "headline": say(
            "headline",
            language,
            total=f"{sum(rows.values()):,}",
            sources=len(chosen),
            licences=", ".join(licences) or say("none", language),
            unstated=say("unstated", language, rows=f"{unstated:,}") if unstated else "",
        ),
    }


def _source(each: SourceRecord, language: str) -> dict[str, Any]:
    record = each.source
    return {
        "id": each.id,
        "anchor": each.id.replace("/", "-"),
        "row": source_words.table_row(each, language),
        "findings": source_words.findings(each, language),
        "languages": language_shares(record),
        "facts": _facts(each, language),
        "filter": each.filter,
        "overlaps": [(name, table(found)) for name, found in table(record.get("contamination")).items()],
    }


def _facts(each: SourceRecord, language: str) -> list[tuple[str, str]]:
    """What is stated and known of a source, name by name."""
    unknown = say("not_stated", language)
    facts = [
        (say(f"fact.{key}", language), str(each.source.get(key) or unknown))
        for key in ("name", "licence", "origin", "collected", "opt_out")
    ]
    if name := table(each.source.get("teacher")).get("name"):
        facts.append((say("fact.teacher", language), str(name)))
    if each.source.get("fingerprint"):
        facts.append(("SHA-256", str(each.source["fingerprint"])))
    if each.kept:
        facts.append((say("fact.kept", language), say_word("kept", each.kept, language)))
    return facts


def _by_rule(samples: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    grouped: dict[str, list[Record]] = {}
    for sample in samples:
        grouped.setdefault(str(sample.get("rule")), []).append(sample)
    return list(grouped.items())


def _render(block: str, language: str = "en", **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["say"] = partial(say, language=language)
    template = environment.from_string(_part("data.html.jinja"))
    macro = getattr(template.make_module(), block)
    return str(macro(**values))


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
