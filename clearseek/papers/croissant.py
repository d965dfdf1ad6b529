"""Croissant 1.1: one data set's file, its fields, where it came from and what may be done with it, as JSON-LD.

Format: docs.mlcommons.org/croissant (1.1), with its RAI vocabulary, and PROV-O for what it was derived from.
"""

import json
from typing import Any

from clearseek.papers.datasets import Absent, DataFile
from clearseek.papers.facts import RunFacts

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(facts: RunFacts, file: DataFile | Absent) -> dict[str, Any]:
    """The description of one data set; it lies beside the file. Of one that is not given away it says so, and why."""
    name = f"{facts.name}-{file.title}"
    known = f"sha256 {file.sha256}" if file.sha256 else f"of ledger root {facts.verified.root}"
    there = _file(file) if isinstance(file, DataFile) else {}
    why = _absence(file) if isinstance(file, Absent) else ""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "description": f"{file.about} Of the run {facts.name}, ledger root {facts.verified.root}.{why}",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "version": "1.0.0",
        "datePublished": facts.day,
        "license": _licence(file.licence),
        "creator": {"@type": "Organization", "name": facts.publisher.provider or "not stated"},
        "url": f"urn:sha256:{file.sha256 or facts.verified.root}",
        "citeAs": f"{name}, {known}, {facts.day}",
        "isLiveDataset": False,
        **_responsible(file),
        **_derived(file),
        **there,
    }


def _absence(absent: Absent) -> str:
    """That there is no file, and what is known of the data all the same."""
    origin = absent.source.origin if absent.source else None
    digest = f"; SHA-256 over its documents: {absent.sha256}" if absent.sha256 else ""
    return f" The file is not distributed: {absent.why}. Origin: {origin or 'not stated'}{digest}."


def _file(file: DataFile) -> dict[str, Any]:
    """The file and its rows."""
    return {
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "rows",
                "name": file.path.rpartition("/")[2],
                "description": f"{file.rows} rows, one JSON object a line.",
                "contentUrl": file.path.rpartition("/")[2],
                "contentSize": f"{file.bytes} B",
                "encodingFormat": "application/jsonlines",
                "sha256": file.sha256,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "documents",
                "name": "documents",
                "description": "One record a row.",
                "field": [_field(name, about) for name, about in file.fields.items()],
            }
        ],
    }


def _licence(licence: str | None) -> str:
    """The address of an SPDX licence; what is not stated is said to be so."""
    if licence is None:
        return "not stated"
    return licence if " " in licence else f"https://spdx.org/licenses/{licence}.html"


def _field(name: str, about: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"documents/{name}",
        "name": name,
        "description": about,
        "dataType": "sc:Text",
        "source": {"fileObject": {"@id": "rows"}, "extract": {"column": name}},
    }


def _responsible(file: DataFile | Absent) -> dict[str, Any]:
    """What Croissant's RAI vocabulary asks, as far as it was counted."""
    source = file.source
    found: dict[str, Any] = {"rai:dataCollection": file.about}
    if source is None:
        return found
    found["rai:dataCollectionType"] = {
        "generated": "Software Collection",
        "written": "Synthetic Generation",
    }.get(source.what, "Others")
    if source.personal_data is not None:
        kinds = ", ".join(f"{kind}: {count}" for kind, count in source.personal_data.items())
        found["rai:personalSensitiveInformation"] = f"found by rule: {kinds or 'none'}"
    if source.filters:
        found["rai:dataPreprocessingProtocol"] = [
            json.dumps(record.get("rules")) for record in source.filters
        ]
    return found


def _derived(file: DataFile | Absent) -> dict[str, Any]:
    source = file.source
    if source is None or not (source.origin or source.teacher or source.written_by):
        return {}
    by = f"the model {source.written_by}" if source.written_by else ""
    whence = (
        f"stage {source.teacher} of the same run"
        if source.teacher
        else ", ".join(filter(None, (source.origin, by)))
    )
    return {"prov:wasDerivedFrom": {"@id": f"urn:clearseek:{source.what}", "name": whence}}
