"""Which licences are open, and for what kind of thing, as the Model Openness Framework counts.

The framework's own tool takes OSI- and FSF-approved licences and open data licences as open, and asks for one that is
made for the kind: code, data or documents. Only licences that are listed here are counted as open.
"""

import re

_CODE = frozenset(
    [
        "0BSD",
        "AFL-3.0",
        "AGPL-3.0-only",
        "AGPL-3.0-or-later",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "ECL-2.0",
        "EPL-2.0",
        "EUPL-1.2",
        "GPL-2.0-only",
        "GPL-2.0-or-later",
        "GPL-3.0-only",
        "GPL-3.0-or-later",
        "ISC",
        "LGPL-2.1-only",
        "LGPL-2.1-or-later",
        "LGPL-3.0-only",
        "LGPL-3.0-or-later",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "MulanPSL-2.0",
        "NCSA",
        "PostgreSQL",
        "UPL-1.0",
        "Unlicense",
        "Zlib",
    ]
)
_DATA = frozenset(
    [
        "CDLA-Permissive-1.0",
        "CDLA-Permissive-2.0",
        "C-UDA-1.0",
        "CC-PDDC",
        "CC0-1.0",
        "PDDL-1.0",
        "OpenMDW-1.0",
    ]
)
_DOCUMENTS = frozenset(
    ["Apache-2.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-PDDC", "CC0-1.0", "OpenMDW-1.0"]
)
_OTHER_OPEN = frozenset(
    ["CC-BY-3.0", "CDLA-Sharing-1.0", "GFDL-1.3-only", "GFDL-1.3-or-later", "ODC-By-1.0", "ODbL-1.0"]
)
APPROPRIATE = {"code": _CODE | {"OpenMDW-1.0"}, "data": _DATA, "document": _DOCUMENTS}
OSI_APPROVED = _CODE
_OPEN = _CODE | _DATA | _DOCUMENTS | _OTHER_OPEN


def is_open(expression: str | None) -> bool:
    """Whether every part that a user can't avoid is open; None (not stated) is not."""
    return _holds(expression, _OPEN)


def is_appropriate(expression: str | None, kind: str) -> bool:
    """Whether it is made for code, data or documents (`kind`)."""
    return _holds(expression, APPROPRIATE[kind])


def is_osi_approved(expression: str | None) -> bool:
    """Whether it is approved by the Open Source Initiative, or a dedication to the public."""
    return _holds(expression, OSI_APPROVED | {"CC0-1.0", "PDDL-1.0"})


def chosen(expression: str, kind: str) -> str:
    """Of alternatives, the first that is made for `kind`; else the expression as it is."""
    parts = [part.strip() for part in expression.split(" OR ")]
    return next((part for part in parts if is_appropriate(part, kind)), expression)


def _holds(expression: str | None, known: frozenset[str]) -> bool:
    """OR: one side is enough; AND: both are needed; an exception (WITH) is not looked into and doesn't hold."""
    if not expression:
        return False
    sides = re.sub(r"[()]", " ", expression).split(" OR ")
    return any(all(part.strip() in known for part in side.split(" AND ")) for side in sides)
