"""The licence of a model directory, as its own files say it."""

import re
from pathlib import Path

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_FIELD = r"^{name}:[ \t]*['\"]?([^'\"\n#]+?)['\"]?[ \t]*(?:#.*)?$"
_READ_AT_MOST = 20_000  # characters
# words that a licence's text has near its beginning, and its SPDX name
_TEXTS = {
    "apache license": "apache-2.0",
    "mit license": "mit",
    "permission is hereby granted, free of charge": "mit",
}


def licence_of(directory: Path) -> str | None:
    """The licence by README.md's front matter, else by the text of LICENSE; None where neither says it."""
    readme = _beginning(directory / "README.md")
    matter = _FRONT_MATTER.match(readme)
    if matter:
        name = _field(matter[1], "license")
        if name and name != "other":
            return name
        if named := _field(matter[1], "license_name"):
            return named
    for path in sorted(directory.glob("LICEN[SC]E*")):
        text = " ".join(_beginning(path).lower().split())
        found = next((name for words, name in _TEXTS.items() if words in text[:2000]), None)
        return found or f"see {path.name}"
    return None


def _field(front_matter: str, name: str) -> str | None:
    found = re.search(_FIELD.format(name=name), front_matter, re.MULTILINE)
    return found[1] if found else None


def _beginning(path: Path) -> str:
    """The first part of a text file; nothing where there is none."""
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_READ_AT_MOST)
