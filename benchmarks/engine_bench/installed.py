"""Bytes on disk of a package and of all it needs, as they are installed here."""

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_ONLY_WITH_EXTRA = re.compile(r"\bextra\b")


def installed_bytes(package: str) -> dict[str, int]:
    """Bytes by package: `package`'s requirements, theirs, and so on; itself not counted."""
    found: dict[str, int] = {}
    waiting = requirements(distribution(package))
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            needed = distribution(name)
        except PackageNotFoundError:  # for another system or Python
            continue
        found[name] = sum(size_of(needed))
        waiting += requirements(needed)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def requirements(package: Distribution) -> list[str]:
    """Names of what it needs without extras."""
    names = []
    for line in package.requires or []:
        requirement, _, marker = line.partition(";")
        match = _NAME.match(requirement)
        if match and not _ONLY_WITH_EXTRA.search(marker):
            names.append(re.sub(r"[-_.]+", "-", match[0]).lower())
    return names


def size_of(package: Distribution) -> list[int]:
    """Bytes of each of its files that is there."""
    paths = [Path(str(package.locate_file(file))) for file in package.files or []]
    return [path.stat().st_size for path in paths if path.is_file()]
