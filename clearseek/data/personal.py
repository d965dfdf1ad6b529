"""Personal data in texts by rule: e-mail, IP, phone, identity numbers, cards and accounts, with their checksums.

A rule finds a form, not a person: what passes may be made up, and what was written another way is not found.
Every rule says what it leaves out on purpose. Digits are ASCII ones, and a number stands on one line: only lines with
enough digits are read, so that plain text costs nothing.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import cache
from typing import NamedTuple

import numpy as np

from clearseek.data.words import parts_of

Find = Callable[[str], Iterator[tuple[int, int]]]  # a text → spans of it
_ASCII = 127
_SHORTEST_STRETCH = 8  # of what a rule with `among` finds
_IN_NUMBERS = " -.()"  # between the digits of one number
_IN_IBANS = " ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SEPARATOR = "\n\0\n"  # between texts: no pattern crosses it


class Found(NamedTuple):
    """One find: its rule, the number of its text, and where in the text it stands."""

    rule: str
    text: int
    start: int
    end: int


def find_personal_data(texts: Sequence[str]) -> list[Found]:
    """Everything the rules find, in order; of finds that overlap only the first rule's in the order of RULES."""
    found: list[Found] = []
    for first, last in parts_of(texts):
        part = texts[first:last]
        lines = _Lines(_SEPARATOR.join(part))
        spans = [(finder.rule, *span) for finder in _FINDERS for span in lines.find(finder)]
        found += _placed(_without_overlaps(spans), part, first)
    return found


class _Finder(NamedTuple):
    """How a rule's finds are looked for: only in lines that can have one.

    Such a line has `fewest_digits` in a stretch of digits and characters `among` (anywhere in it where that is empty),
    and a `sign` three times where there is one.
    """

    rule: str
    find: Find
    fewest_digits: int
    among: str = ""
    sign: str = ""


class _Lines:
    """The lines of a text by their digits and signs: what a rule can't be in is not read for it."""

    def __init__(self, whole: str) -> None:
        self.whole = whole
        self.codes = np.frombuffer(whole.encode("utf-32-le", "surrogatepass"), np.uint32)
        self.ends = np.append(np.flatnonzero(self.codes == ord("\n")), len(self.codes))
        self.starts = np.concatenate([[0], self.ends[:-1] + 1])
        self.digits = np.flatnonzero((self.codes - np.uint32(ord("0"))) < 10)  # their places
        self._stretches: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def find(self, finder: _Finder) -> list[tuple[int, int]]:
        """What a finder finds, in lines that can have it."""
        if not finder.fewest_digits:
            return list(finder.find(self.whole))
        likely = self._likely(finder)
        if not likely.any():
            return []
        starts, ends = self.starts[likely].tolist(), self.ends[likely].tolist()
        read = "\n".join([self.whole[start:end] for start, end in zip(starts, ends, strict=True)])
        begins = np.cumsum([0, *(end - start + 1 for start, end in zip(starts, ends, strict=True))])
        spans = list(finder.find(read))
        lines = np.searchsorted(begins, [start for start, _ in spans], "right") - 1
        shifts = [starts[line] - int(begins[line]) for line in lines.tolist()]
        return [(start + shift, end + shift) for (start, end), shift in zip(spans, shifts, strict=True)]

    def _likely(self, finder: _Finder) -> np.ndarray:
        """bool [lines]: which a finder reads."""
        if finder.among:
            lines, digits = self._digits_in_stretches(finder.among)
            likely = np.zeros(len(self.ends), bool)
            likely[lines[digits >= finder.fewest_digits]] = True
        else:
            likely = self._between(self.digits, self.starts, self.ends) >= finder.fewest_digits
        if finder.sign:
            signs = np.flatnonzero(self.codes == ord(finder.sign))
            likely &= self._between(signs, self.starts, self.ends) >= 3
        return likely

    def _digits_in_stretches(self, among: str) -> tuple[np.ndarray, np.ndarray]:
        """Of every stretch of digits and these characters that is long enough for a rule: its line, and its digits."""
        if among not in self._stretches:
            inside = np.zeros(len(self.codes) + 2, bool)
            inside[1:-1] = _table(among)[np.minimum(self.codes, _ASCII)]
            edges = np.flatnonzero(inside[1:] != inside[:-1])
            starts, ends = edges[::2], edges[1::2]
            long_enough = ends - starts >= _SHORTEST_STRETCH
            starts, ends = starts[long_enough], ends[long_enough]
            digits = self._between(self.digits, starts, ends)
            self._stretches[among] = np.searchsorted(self.ends, starts), digits
        return self._stretches[among]

    @staticmethod
    def _between(places: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """int64: how many of these places (in order) lie from each start up to its end."""
        return np.searchsorted(places, ends) - np.searchsorted(places, starts)


@cache
def _table(among: str) -> np.ndarray:
    """bool [128]: whether an ASCII character is a digit or one of these; the last stands for all beyond."""
    return np.array([chr(code) in f"0123456789{among}" for code in range(_ASCII + 1)])


def mask(text: str, found: Sequence[Found]) -> str:
    """The text with every find (all of this text, in order) replaced by its rule's name in brackets."""
    parts, last = [], 0
    for one in found:
        parts += [text[last : one.start], f"[{one.rule}]"]
        last = one.end
    return "".join([*parts, text[last:]])


def _without_overlaps(spans: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Spans in the order of their rules; one that touches an earlier rule's is left out. In order of place."""
    kept: list[tuple[str, int, int]] = []
    covered: set[int] = set()
    for rule, start, end in spans:
        if covered.isdisjoint(range(start, end)):
            covered.update(range(start, end))
            kept.append((rule, start, end))
    return sorted(kept, key=lambda span: span[1])


def _placed(spans: list[tuple[str, int, int]], texts: Sequence[str], first: int) -> Iterator[Found]:
    """Finds in texts end to end, the first of which has this number, as finds in each."""
    number, begin = 0, 0
    for rule, start, end in spans:
        while start >= begin + len(texts[number]) + len(_SEPARATOR):
            begin += len(texts[number]) + len(_SEPARATOR)
            number += 1
        yield Found(rule, first + number, start - begin, end - begin)


# e-mail (RFC 5321's common form; without the domains that RFC 2606 keeps for examples, and without git@host:path)

_LOCAL = re.compile(r"[A-Za-z0-9._%+\-]{1,64}\Z")
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,8}([A-Za-z]{2,24})(?![A-Za-z0-9\-@])"
)
_EXAMPLES = re.compile(
    r"(?:^|\.)(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost)$", re.IGNORECASE
)
_FILES = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "json", "md", "py")
)  # logo@2x.png


def _emails(whole: str) -> Iterator[tuple[int, int]]:
    at = whole.find("@")
    while at >= 0:
        local, domain = _LOCAL.search(whole, max(at - 64, 0), at), _DOMAIN.match(whole, at + 1)
        if local and domain and not _is_no_address(local[0], domain, whole):
            yield local.start() + len(local[0]) - len(local[0].lstrip(".-")), domain.end()
        at = whole.find("@", at + 1)


def _is_no_address(local: str, domain: re.Match[str], whole: str) -> bool:
    name = local.strip(".-")
    is_path = name == "git" and whole[domain.end() : domain.end() + 1] == ":"
    return not name or is_path or domain[1].lower() in _FILES or bool(_EXAMPLES.search(domain[0]))


# IP addresses that the Internet routes (not private, reserved or documentation ones; not version numbers)

_IPV4 = re.compile(r"(?<![\w.\-])(?:\d{1,3}\.){3}\d{1,3}(?![\w\-]|\.\d)", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{0,4}(?![\w:.])", re.ASCII)
_VERSION = re.compile(r"(?:\bversions?|버전|版本|\bv|\brelease)[\s:=]{0,3}\Z", re.IGNORECASE)


def _ipv4s(whole: str) -> Iterator[tuple[int, int]]:
    return _routed(_IPV4, whole)


def _ipv6s(whole: str) -> Iterator[tuple[int, int]]:
    return _routed(_IPV6, whole)


def _routed(pattern: re.Pattern[str], whole: str) -> Iterator[tuple[int, int]]:
    for found in pattern.finditer(whole):
        try:
            address = ipaddress.ip_address(found[0])
        except ValueError:
            continue
        if address.is_global and not _VERSION.search(whole, max(found.start() - 12, 0), found.start()):
            yield found.span()


# phone numbers: Korean, Chinese, and any written with + or as (xxx) xxx-xxxx

_PHONE = re.compile(
    r"(?<![\w.+\-])(?:"
    r"(?:\+82[\-. ]?|0)1(?:0[\-. ]?\d{4}|[16789][\-. ]?\d{3,4})[\-. ]?\d{4}"  # Korean mobile
    r"|(?:\+82[\-. ]?|0)(?:2|[3-6][1-5]|70)[\-. )]{1,2}\d{3,4}[\-. ]\d{4}"  # Korean landline, with separators
    r"|(?:\+?86[\-. ]?)?1(?:3\d|4[5-9]|5[0-35-9]|6[2567]|7[0-8]|8\d|9[0-35-9])(?:\d{8}|-\d{4}-\d{4}| \d{4} \d{4})"
    r"|\+[1-9]\d{0,2}[\-. ]?(?:\(\d{1,4}\)[\-. ]?)?\d{2,4}[\-. ]\d{3,4}(?:[\-. ]\d{2,4}){1,2}"  # E.164 in groups
    r"|\+[1-9]\d{9,13}"  # E.164 in one
    r"|\([2-9]\d\d\) ?[2-9]\d\d-\d{4}"  # North American
    r")(?![\w\-]|\.\d)",
    re.ASCII,
)


def _phones(whole: str) -> Iterator[tuple[int, int]]:
    for found in _PHONE.finditer(whole):
        digits = "".join(filter(str.isdigit, found[0]))
        if len(set(digits[-8:])) > 1 and 8 <= len(digits) <= 15:  # 8 times the same digit is a placeholder
            yield found.span()


# identity numbers

_RRN = re.compile(r"(?<![\d\-])\d{6}[\- ]?[1-8]\d{6}(?![\d\-])", re.ASCII)
_CHINESE_ID = re.compile(r"(?<![\dA-Za-z])[1-8]\d{16}[\dXx](?![\dA-Za-z])", re.ASCII)


def _rrns(whole: str) -> Iterator[tuple[int, int]]:
    for found in _RRN.finditer(whole):
        if is_resident_registration_number(found[0]):
            yield found.span()


def is_resident_registration_number(text: str) -> bool:
    """Whether 13 digits (with - or not) are a 주민등록번호: a date, a century's digit, and the check digit.

    Numbers given since October 2020 have no check digit: of those born then only the form with - counts.
    """
    digits = [int(one) for one in text if one.isdigit()]
    century = {1: 1900, 2: 1900, 5: 1900, 6: 1900, 3: 2000, 4: 2000, 7: 2000, 8: 2000}.get(digits[6], 0)
    born = _date(century + digits[0] * 10 + digits[1], digits[2] * 10 + digits[3], digits[4] * 10 + digits[5])
    if born is None:
        return False
    weights = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
    check = (11 - sum(w * d for w, d in zip(weights, digits[:12], strict=True)) % 11) % 10
    return check == digits[12] or ("-" in text and born >= date(2020, 10, 1))


def _chinese_ids(whole: str) -> Iterator[tuple[int, int]]:
    for found in _CHINESE_ID.finditer(whole):
        if is_chinese_resident_id(found[0]):
            yield found.span()


def is_chinese_resident_id(text: str) -> bool:
    """Whether 18 characters are a resident identity number (GB 11643-1999): region, date and check character."""
    if _date(int(text[6:10]), int(text[10:12]), int(text[12:14])) is None or text[:2] not in _REGIONS:
        return False
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(text[:17]))
    return "10X98765432"[total % 11] == text[17].upper()


_REGIONS = frozenset(  # the two digits of provinces in GB/T 2260
    str(code)
    for first, last in ((11, 15), (21, 23), (31, 37), (41, 46), (50, 54), (61, 65), (71, 71), (81, 83))
    for code in range(first, last + 1)
)


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day) if 1850 <= year <= 2100 else None
    except ValueError:
        return None


# cards: 13 to 19 digits in the usual groups, an issuer's beginning, and Luhn's check digit

_CARD = re.compile(
    r"(?<![\w.\-])(?:\d{4}([ \-]?)\d{4}\1\d{4}\1\d{1,7}|\d{4}([ \-])\d{6}\2\d{4,5})(?![\w\-]|\.\d)", re.ASCII
)
_ISSUERS = re.compile(  # by beginning and length
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|9\d)\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|(?:6011\d\d|64[4-9]\d{3}|65\d{4}|62\d{4}|35\d{4})\d{10,13}|3(?:0[0-5]\d|[689]\d\d)\d{10}"
)


def _cards(whole: str) -> Iterator[tuple[int, int]]:
    for found in _CARD.finditer(whole):
        digits = "".join(filter(str.isdigit, found[0]))
        if _ISSUERS.fullmatch(digits) and len(set(digits)) > 1 and passes_luhn(digits):
            yield found.span()


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is Luhn's check digit (ISO/IEC 7812-1, annex B) of those before it."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


# accounts: IBAN by its checksum; other numbers only right after a word that says they are one

_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])", re.ASCII
)
_ACCOUNT = re.compile(
    r"(?:계좌(?:\s?번호)?|(?<=[가-힣])은행|账号|账户|帳號|卡号|银行卡|bank account|account (?:number|no\.?))"
    r"[^\d\n]{0,16}(?P<number>\d(?:-?\d){8,18})(?![\d\-])",
    re.IGNORECASE,
)


def _ibans(whole: str) -> Iterator[tuple[int, int]]:
    for found in _IBAN.finditer(whole):
        if is_iban(found[0]):
            yield found.span()


def _accounts(whole: str) -> Iterator[tuple[int, int]]:
    for found in _ACCOUNT.finditer(whole):
        yield found.span("number")


def is_iban(text: str) -> bool:
    """Whether a number is an IBAN: 15 to 34 characters with the remainder 1 (ISO 13616, ISO 7064 MOD 97-10)."""
    number = text.replace(" ", "")
    moved = number[4:] + number[:4]
    return 15 <= len(number) <= 34 and int("".join(str(int(one, 36)) for one in moved)) % 97 == 1


_FINDERS = (
    _Finder("kr_resident_number", _rrns, 13, _IN_NUMBERS),
    _Finder("cn_resident_id", _chinese_ids, 17, _IN_NUMBERS),
    _Finder("card", _cards, 13, _IN_NUMBERS),
    _Finder("email", _emails, 0),
    _Finder("ip", _ipv4s, 4, sign="."),
    _Finder("ip", _ipv6s, 1, sign=":"),
    _Finder("bank_account", _ibans, 8, _IN_IBANS),
    _Finder("bank_account", _accounts, 9, _IN_NUMBERS),
    _Finder("phone", _phones, 8, _IN_NUMBERS),
)
RULES = tuple(dict.fromkeys(finder.rule for finder in _FINDERS))  # in order of precedence
