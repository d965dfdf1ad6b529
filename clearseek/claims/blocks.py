"""The blocks of a Markdown document, and what each says its figures come from.

A block is a paragraph, a list's item, a table or code. A comment that stands in it or directly behind it
names its source:

    <!-- claim: RECORD PATH PATH ... -->   one path into the record for each figure, in reading order
    <!-- shown: RECORD PATH -->            the fenced block before it is that text of the record
    <!-- logged: ENTRY -->                 the figures stand in that entry of docs/log.md, by its heading
    <!-- not measured: WHY -->             limits, sizes that somebody chose, figures that others published
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from clearseek.claims.figures import CODE, Figure, of_table, of_text

_COMMENT = re.compile(r"<!--\s*(claim|shown|logged|not measured):\s*(.*?)\s*-->", re.DOTALL)
_ANY_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A paragraph, an item, a table or code, from `line` on; `source` is what its comment says, or None."""

    line: int
    kind: str  # "text", "table", "fence" or "code", which is indented
    text: str
    source: tuple[str, str] | None

    @property
    def figures(self) -> list[Figure]:
        """Its measured numbers in reading order; none of code; a fenced block counts as a whole."""
        if self.kind in ("fence", "code"):
            return []
        return of_table(self.text) if self.kind == "table" else of_text(self.text)


def blocks_of(document: str) -> Iterator[Block]:
    """The blocks of a Markdown document; a comment belongs to the block that it stands in or directly behind."""
    waiting: Block | None = None
    for line, kind, text in _raw_blocks(document):
        said = (
            "" if kind in ("fence", "code") else CODE.sub("", text)
        )  # what is typed between backticks says nothing
        sources = [(found[1], " ".join(found[2].split())) for found in _COMMENT.finditer(said)]
        source = sources[-1] if sources else None
        if waiting is not None and kind == "text" and source and not _ANY_COMMENT.sub("", text).strip():
            yield Block(waiting.line, waiting.kind, waiting.text, source)
            waiting = None
            continue
        if waiting is not None:
            yield waiting
        waiting = Block(line, kind, text if kind == "fence" else _ANY_COMMENT.sub("", text), source)
    if waiting is not None:
        yield waiting


def _raw_blocks(document: str) -> Iterator[tuple[int, str, str]]:
    """First line, kind and text of every block."""
    splitter = _Splitter()
    for number, line in enumerate([*_without_front_matter(document), ""], 1):
        yield from splitter.add(number, line)


class _Splitter:
    """Gathers lines into blocks; a fence and a comment run on over empty lines."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._start, self._kind = 1, "text"
        self._fence = ""  # the mark that an open fenced block ends with
        self._in_item = False  # indented lines go on with a list's item, else they are code

    def add(self, number: int, line: str) -> Iterator[tuple[int, str, str]]:
        """Take one line; the block that ended with it or before it, if one did."""
        mark = re.match(r"\s*(`{3,}|~{3,})(.*)", line)
        if self._fence:
            self._lines.append(line)
            if mark and mark[1].startswith(self._fence) and not mark[2].strip():
                self._fence = ""
                yield self._taken()
            return
        if self._in_comment:
            self._lines.append(line)
            return
        is_item = bool(re.match(r"\s*([-*+]|\d+\.)\s", line))
        kind = self._kind_of(line)
        ends = not line.strip() or mark or kind != self._kind or (is_item and kind != "code")
        if self._lines and ends:
            yield self._taken()
        self._in_item = is_item or (self._in_item and (not line.strip() or line.startswith("  ")))
        if mark or line.strip():
            if not self._lines:
                self._start, self._kind = number, "fence" if mark else kind
            self._fence = mark[1] if mark else ""
            self._lines.append(line)

    @property
    def _in_comment(self) -> bool:
        text = "\n".join(self._lines)
        return text.count("<!--") > text.count("-->")

    def _kind_of(self, line: str) -> str:
        is_code = self._kind == "code" if self._lines else not self._in_item
        if line.startswith("    ") and is_code:
            return "code"
        return "table" if line.lstrip().startswith("|") else "text"

    def _taken(self) -> tuple[int, str, str]:
        block = self._start, self._kind, "\n".join(self._lines)
        self._lines = []
        return block


def _without_front_matter(document: str) -> list[str]:
    """The lines; those of a YAML head, which programs read, are empty."""
    lines = document.split("\n")
    if lines[0].strip() == "---" and "---" in (line.strip() for line in lines[1:]):
        end = 1 + [line.strip() for line in lines[1:]].index("---")
        return [""] * (end + 1) + lines[end + 1 :]
    return lines
