"""Which numbers of a Markdown document were measured, block by block, and what the document says they come from.

The rule. A number with a unit of measuring (`UNITS`: %, seconds, bytes, watt-hours, times, tokens a second) counts as
measured, in running text, in lists and in tables; so does a number that is joined to one (`76 and 61 %`), and in a
table whose column's heading has a unit every number of that column. What stands between backticks does not: it is
typed, not measured. A fenced block of text shows what a command printed: it counts as a whole. A block is a paragraph,
a list's item or a table, and says behind itself where its figures come from:

    <!-- claim: RECORD PATH PATH ... -->   one path into the record for each figure, in reading order
    <!-- shown: RECORD PATH -->            the fenced block before it is that text of the record
    <!-- logged: ENTRY -->                 the figures stand in that entry of docs/log.md, by its heading
    <!-- not measured: WHY -->             limits, sizes that somebody chose, figures that others published
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

# what a figure is multiplied by to be in the record's unit: shares of one, seconds, bytes, kilowatt-hours
UNITS = {
    "%": "0.01", "‰": "0.001", "×": "1", "times": "1", "배": "1", "倍": "1",
    "µs": "1e-6", "μs": "1e-6", "ms": "1e-3", "s": "1", "seconds": "1", "second": "1", "sec": "1", "초": "1", "秒": "1",
    "min": "60", "minutes": "60", "minute": "60", "분": "60", "分钟": "60",
    "h": "3600", "hours": "3600", "hour": "3600", "시간": "3600", "小时": "3600",
    "bytes": "1", "kB": "1e3", "KB": "1e3", "MB": "1e6", "GB": "1e9", "TB": "1e12",
    "KiB": "1024", "MiB": "1048576", "GiB": "1073741824", "바이트": "1", "字节": "1",
    "MB/s": "1e6", "GB/s": "1e9", "tokens/s": "1", "토큰/초": "1", "词元/秒": "1",
    "Wh": "1e-3", "kWh": "1", "J": "1", "W": "1",
    "FLOP": "1", "MFLOP": "1e6", "GFLOP": "1e9", "TFLOP": "1e12", "PFLOP": "1e15", "GFLOP/s": "1e9",
    "USD": "1", "EUR": "1", "KRW": "1",
}  # fmt: skip
_ALPHABETIC = re.compile(r"[A-Za-z]")
_UNIT = "|".join(
    re.escape(unit) + (r"(?![A-Za-z/])" if _ALPHABETIC.match(unit[-1]) else "")
    for unit in sorted(UNITS, key=len, reverse=True)
)
_NUMBER = r"(?<![\w.,/])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?"
_NOT_OURS = r"(?!\s*(?:interval|confidence|신뢰|구간|置信|区间))"  # a 95 % interval
_MEASURED = re.compile(rf"({_NUMBER})[  -]?({_UNIT}){_NOT_OURS}")
_WHOLES = ("h", "min", "시간", "분", "小时", "分钟")
_JOINED = re.compile(rf"({_NUMBER})\s?(?:%\s?)?(?:and|to|or|bis|,|、|–|~|와|과|에서|到|至|和)\s?(?=[-+−]?\d)")
_COMMENT = re.compile(r"<!--\s*(claim|shown|logged|not measured):\s*(.*?)\s*-->", re.DOTALL)
_ANY_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).*?\1", re.DOTALL)
_LINK_TARGET = re.compile(r"\]\([^)]*\)")
_HTML = re.compile(r"<[a-z/][^>]*>")


@dataclass(frozen=True)
class Figure:
    """A number as it is written, such as `1,234.5` or `6 min 23`, its value in the record's unit, its factor.

    `half_digit` is half of its last written digit: how far rounding may have moved it.
    """

    text: str
    value: Decimal
    half_digit: Decimal
    factor: Decimal

    @classmethod
    def of(cls, text: str, unit: str) -> Self:
        """A number and its unit; a number without one has the unit ''."""
        factor = Decimal(UNITS.get(unit, "1"))
        written = Decimal(text.replace(",", "").replace("−", "-"))
        exponent = written.as_tuple().exponent
        assert isinstance(exponent, int)
        return cls(text, written * factor, Decimal(1).scaleb(exponent) / 2 * factor, factor)

    def after(self, whole: Self, unit: str) -> "Figure":
        """This one as the rest behind `whole`, as the 23 in `6 min 23 s`."""
        return Figure(
            f"{whole.text} {unit} {self.text}", whole.value + self.value, self.half_digit, self.factor
        )


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
        return _of_table(self.text) if self.kind == "table" else _of_text(self.text)


def blocks_of(document: str) -> Iterator[Block]:
    """The blocks of a Markdown document; a comment belongs to the block that it stands in or directly behind."""
    waiting: Block | None = None
    for line, kind, text in _raw_blocks(document):
        said = (
            "" if kind in ("fence", "code") else _CODE.sub("", text)
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


def _plain(text: str) -> str:
    return _HTML.sub(" ", _LINK_TARGET.sub("]", _CODE.sub(" ` ", text)))


def _of_text(text: str) -> list[Figure]:
    text = _plain(text)
    figures: dict[int, Figure] = {}
    last: tuple[int, int, str] | None = None  # where the last one begins and ends, and its unit
    for found in _MEASURED.finditer(text):
        figure, start = Figure.of(found[1], found[2]), found.start()
        if last and last[2] in _WHOLES and not text[last[1] : start].strip() and found[2] in UNITS:
            start, figure = last[0], figure.after(figures[last[0]], last[2])
        figures[start] = figure
        last = (start, found.end(), found[2])
        while (before := _joined_before(text, start)) is not None and before.start() not in figures:
            start = before.start()
            figures[start] = Figure.of(before[1], found[2])
    return [figures[place] for place in sorted(figures)]


def _joined_before(text: str, start: int) -> re.Match[str] | None:
    return next((m for m in _JOINED.finditer(text, max(start - 40, 0), start + 2) if m.end() == start), None)


def _of_table(text: str) -> list[Figure]:
    rows = [[_plain(cell) for cell in line.strip().strip("|").split("|")] for line in _lines_of_table(text)]
    if len(rows) < 2:
        return []
    heads = [_unit_in(cell) for cell in rows[0]]
    common = (
        heads[0] if None in heads[1:] else None
    )  # a unit in the corner is that of the columns without one
    heads[0] = None if common else heads[0]
    figures = []
    for row in rows[1:]:
        if all(set(cell.strip()) <= set(":- ") for cell in row):
            continue
        for place, cell in enumerate(row):
            unit = (heads[place] if place < len(heads) else None) or (common if place else None)
            figures += _of_text(cell) if unit is None or _of_text(cell) else _bare(cell, unit)
    return figures


def _lines_of_table(text: str) -> list[str]:
    return [
        _CODE.sub(lambda found: found[0].replace("|", " "), line) for line in text.split("\n") if line.strip()
    ]


def _unit_in(heading: str) -> str | None:
    """The unit that a column's heading names: as a word of its own, or behind a comma or in brackets."""
    words = re.split(r"[\s,()]+", heading.strip())
    return next((word for word in words if word in UNITS and word not in ("times", "W")), None)


def _bare(cell: str, unit: str) -> list[Figure]:
    return [Figure.of(found, unit) for found in re.findall(_NUMBER, cell)]


def numbers_in(text: str) -> set[Decimal]:
    """Every number of a text, without its unit."""
    return {Figure.of(found, "").value for found in re.findall(_NUMBER, text)}
