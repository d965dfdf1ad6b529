"""The three READMEs say the same, and what they tell people to type exists."""

import importlib
import json
import re
import shlex
from pathlib import Path

import click
import pytest

from clearseek.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("README.md", "README.ko.md", "README.zh.md")
TRANSLATIONS = NAMES[1:]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def heading_levels(text: str) -> list[int]:
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [len(marks) for marks in re.findall(r"^(#+) ", outside, flags=re.MULTILINE)]


def code_blocks(text: str) -> list[str]:
    return re.findall(r"```.*?```", text, flags=re.DOTALL)


def inline_code(text: str) -> list[str]:
    return sorted(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def links(text: str) -> list[str]:
    return sorted(re.findall(r"\]\(([^)]+)\)", text))


def rows(text: str) -> list[str]:
    return re.findall(r"^\| (`[^|]*`) \|", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_translations_have_the_same_headings_code_and_figures(name):
    ours, theirs = text_of("README.md"), text_of(name)
    assert heading_levels(theirs) == heading_levels(ours)
    assert code_blocks(theirs) == code_blocks(ours)
    assert inline_code(theirs) == inline_code(ours)
    assert [row.replace("、", ", ") for row in rows(theirs)] == rows(ours)
    assert re.findall(r"<!--.*?-->", theirs) == re.findall(r"<!--.*?-->", ours)


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_translations_link_to_the_same_places(name):
    outside = set(NAMES)
    assert [link for link in links(text_of(name)) if link not in outside] == [
        link for link in links(text_of("README.md")) if link not in outside
    ]


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    assert [link for link in links(text_of(name)) if "://" not in link and not (ROOT / link).exists()] == []


def typed_commands() -> list[list[str]]:
    blocks = "\n".join(code_blocks(text_of("README.md")))
    lines = [line.partition("clearseek ")[2] for line in blocks.splitlines() if "clearseek " in line]
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("words", typed_commands(), ids=" ".join)
def test_typed_commands_parse(words):
    command = importlib.import_module(COMMANDS[words[0]][0]).command
    options = {flag: p for p in command.params if isinstance(p, click.Option) for flag in p.opts}
    assert [word for word in words[1:] if word.startswith("-") and word not in options] == []
    command.make_parser(click.Context(command)).parse_args(words[1:])


def test_every_command_has_a_row():
    table = text_of("README.md")
    assert [name for name in COMMANDS if f"| `clearseek {name} " not in table] == []


def test_example_problem_is_what_the_example_script_writes(capsys):
    script = re.search(r"<<'END'\n(.*?)\nEND", text_of("README.md"), flags=re.DOTALL)
    shown = re.search(r"```json\n(.*?)\n```", text_of("README.md"), flags=re.DOTALL)
    assert script is not None
    assert shown is not None
    exec(compile(script[1], "README.md", "exec"), {})  # noqa: S102  the README's own example, run as it stands
    written = capsys.readouterr().out.splitlines()
    assert json.loads(written[0]) == json.loads(shown[1])
    assert len(written) == 400
