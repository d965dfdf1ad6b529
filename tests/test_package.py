"""The package: how many others it brings, that every one is pinned, and what a wheel carries."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# What torch brings for a graphics card depends on the machine and is pinned by torch itself.
OF_TORCH = re.compile(r"nvidia|cuda|triton")


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("#")[0].strip().split("==") for line in lines if line.partition("#")[0].strip()]
    return {canonicalize_name(package): release for package, release in pairs}


def brought_by(roots: list[str]) -> set[str]:
    """Installed packages that `roots` (requirements) need, themselves included."""
    found: set[str] = set()
    waiting = [(Requirement(root), "") for root in roots]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            needs = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue
        if name not in found or requirement.extras:
            found.add(name)
            waiting += [(need, wanted) for need in needs for wanted in {"", *requirement.extras}]
    return found


def test_brings_fewer_than_sixty_packages():
    brought = brought_by(PROJECT["project"]["dependencies"])
    assert {"torch", "pydantic-core", "sympy"} <= brought
    assert len(brought) < 60, sorted(brought)


def test_every_package_brought_is_pinned_as_installed():
    dependencies = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]
    pinned = pins("constraints.txt")
    brought = {name for name in brought_by(dependencies) if not OF_TORCH.match(name)}
    assert sorted(brought - pinned.keys()) == []
    installed = {name: version(name).partition("+")[0] for name in brought}
    assert installed == {name: pinned[name] for name in brought}


def test_peers_share_our_pins():
    ours, theirs = pins("constraints.txt"), pins("constraints-peers.txt")
    shared = ours.keys() & theirs.keys()
    assert theirs["torch"] == "2.13.0"
    assert theirs["trl"] == "1.16.0"
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


def test_wheel_carries_recipes_and_types():
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["only-include"] == ["clearseek", "recipes"]
    assert wheel["sources"] == {"recipes": "clearseek/recipes"}
    assert (ROOT / "clearseek" / "py.typed").is_file()


@pytest.mark.parametrize("name", ["LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "docs/log.md"])
def test_papers_are_there(name):
    assert (ROOT / name).read_text(encoding="utf-8").strip()


def test_changelog_names_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## (\[Unreleased\]|{re.escape(PROJECT['project']['version'])})", text, re.MULTILINE)
    assert version("clearseek") == PROJECT["project"]["version"]
