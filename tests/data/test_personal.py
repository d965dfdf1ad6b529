"""Personal data by rule: known vectors of every number's check digit, and the traps that look alike.

Every number here is made up or published as an example; none is anybody's.
"""

import random

import pytest

from clearseek.data.personal import (
    RULES,
    find_personal_data,
    is_chinese_resident_id,
    is_iban,
    is_resident_registration_number,
    mask,
    passes_luhn,
)


def found(text: str) -> list[tuple[str, str]]:
    """(rule, what it found) of one text."""
    return [(one.rule, text[one.start : one.end]) for one in find_personal_data([text])]


def rrn(first_twelve: str) -> str:
    """A 주민등록번호 with its check digit, by the rule as the Ministry words it."""
    total = sum(int(d) * (2 + i if i < 8 else i - 6) for i, d in enumerate(first_twelve))
    return f"{first_twelve[:6]}-{first_twelve[6:]}{(11 - total % 11) % 10}"


def chinese_id(first_seventeen: str) -> str:
    """An identity number with its check character, by GB 11643's table of weights."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return (
        first_seventeen
        + "10X98765432"[sum(w * int(d) for w, d in zip(weights, first_seventeen, strict=True)) % 11]
    )


@pytest.mark.parametrize(
    ("rule", "text", "number"),
    [
        ("email", "write to kim.minji+dev@mail.co.kr, please", "kim.minji+dev@mail.co.kr"),
        ("email", "메일은hong@naver.com입니다", "hong@naver.com"),
        ("email", "<li@163.com>", "li@163.com"),
        ("ip", "from 8.8.4.4 came", "8.8.4.4"),
        ("ip", "host 2606:4700:4700::1111 up", "2606:4700:4700::1111"),
        ("phone", "전화 010-2345-6789", "010-2345-6789"),
        ("phone", "01023456789로", "01023456789"),
        ("phone", "+82 10 2345 6789", "+82 10 2345 6789"),
        ("phone", "서울 02-312-4567", "02-312-4567"),
        ("phone", "부산 051-987-6543", "051-987-6543"),
        ("phone", "手机13912345678。", "13912345678"),
        ("phone", "+86 139 1234 5678", "+86 139 1234 5678"),
        ("phone", "call (415) 555-2671 now", "(415) 555-2671"),
        ("phone", "call +44 20 7946 0958", "+44 20 7946 0958"),
        ("phone", "+14155552671", "+14155552671"),
        ("kr_resident_number", f"번호 {rrn('900101123456')} 임", rrn("900101123456")),
        ("cn_resident_id", "身份证11010519491231002X号", "11010519491231002X"),  # the standard's own example
        ("card", "card 4111 1111 1111 1111.", "4111 1111 1111 1111"),
        ("card", "5500005555555559", "5500005555555559"),
        ("card", "3782-822463-10005", "3782-822463-10005"),
        ("bank_account", "IBAN GB82 WEST 1234 5698 7654 32", "GB82 WEST 1234 5698 7654 32"),
        ("bank_account", "국민은행 계좌번호: 123456-01-234567", "123456-01-234567"),
        ("bank_account", "账号：6217001234567890001x 账号 1234567890123", "1234567890123"),
    ],
)  # fmt: skip
def test_every_form_is_found_where_it_stands(rule: str, text: str, number: str) -> None:
    assert (rule, number) in found(text)
    assert find_personal_data(["nothing", text])[0].text == 1


@pytest.mark.parametrize(
    "text",
    [
        "npm install react@18.2.0 @babel/core", "git clone git@github.com:me/it.git", "user@example.com", "logo@2x.png",
        "a@b", "@media (min-width: 3px)", "sales@shop.test",
        "127.0.0.1", "192.168.0.1:80", "10.1.2.3", "203.0.113.9", "version 1.2.3.4", "v8.8.8.8", "1.2.3.4.5",
        "999.1.1.1",
        "::1", "fe80::1", "2001:db8::2", "std::vector", "12:30:45:10", "a::b::c::d",
        "1700000000000", "20261129123456", "3.141592653589793", "0x1234567890abcdef", "2026-11-29", "11-22-33-44",
        "13900000000", "010-0000-0000", "10138001380001", "123-456-789", "1+1=2, 13-5=8, 100-50-25",
        "900101-1234561", "901301-1234567", "110105194912310021", "110105194913310027", "990105194912310025",
        "4111 1111 1111 1112", "1234 5678 9012 3456", "0000 0000 0000 0000", "902678696597634",
        "GB82 WEST 1234 5698 7654 33", "order 123456-01-234567", "계좌 이체는 3번",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "36,28,7 → 13912",
    ],
)  # fmt: skip
def test_what_only_looks_alike_is_left_alone(text: str) -> None:
    assert found(text) == []


def test_check_digits_are_those_of_the_definitions() -> None:
    draw = random.Random(3)
    for _ in range(300):
        born = f"{draw.randrange(100):02d}{draw.randrange(1, 13):02d}{draw.randrange(1, 29):02d}"
        right = rrn(born + str(draw.choice((1, 2, 5, 6))) + f"{draw.randrange(10**5):05d}")
        wrong = right[:-1] + str((int(right[-1]) + draw.randrange(1, 10)) % 10)
        assert is_resident_registration_number(right)
        assert not is_resident_registration_number(wrong)
        right = chinese_id(f"440106{draw.randrange(1930, 2020)}{born[2:]}{draw.randrange(1000):03d}")
        assert is_chinese_resident_id(right)
        assert not any(is_chinese_resident_id(right[:-1] + x) for x in "0123456789X" if x != right[-1])


def test_numbers_without_a_check_digit_count_only_for_those_born_since_then() -> None:
    def another(number: str) -> str:
        return number[:-1] + str((int(number[-1]) + 1) % 10)

    late, early = rrn("210305312345"), rrn("200930312345")
    assert is_resident_registration_number(another(late))
    assert not is_resident_registration_number(another(late).replace("-", ""))
    assert not is_resident_registration_number(another(early))
    assert is_resident_registration_number(early)


def test_luhn_and_iban_know_published_numbers() -> None:
    assert all(map(passes_luhn, ("79927398713", "378282246310005", "6011111111111117", "3530111333300000")))
    assert not any(passes_luhn(f"7992739871{digit}") for digit in "012456789")
    assert is_iban("DE89370400440532013000")
    assert is_iban("FR1420041010050500013M02606")
    assert not is_iban("DE89370400440532013001")


def test_of_overlapping_finds_the_stricter_rule_stays() -> None:
    assert found("은행 계좌 4111111111111111") == [("card", "4111111111111111")]
    assert [rule for rule, _ in found(f"전화 {rrn('850505212345')}")] == ["kr_resident_number"]


def test_masking_leaves_everything_else_as_it_was() -> None:
    text = "a@b.org, 010-2345-6789 또는 c@d.org!"
    masked = mask(text, find_personal_data([text]))
    assert masked == "[email], [phone] 또는 [email]!"
    assert found(masked) == []
    assert mask("nothing", []) == "nothing"


def test_places_are_right_in_many_texts_with_line_breaks_and_nuls() -> None:
    draw = random.Random(4)
    pieces = ["x@mail.org", "010-2345-6789", "\n", "\0", "가", "12 ", "plain ", "\n\0\n"]
    texts = ["".join(draw.choices(pieces, k=draw.randrange(0, 12))) for _ in range(200)]
    alone = [(number, *one[2:]) for number, text in enumerate(texts) for one in find_personal_data([text])]
    together = [(one.text, one.start, one.end) for one in find_personal_data(texts)]
    assert together == alone
    assert len(alone) > 50


def test_long_hostile_texts_take_no_time() -> None:
    for piece in (
        "1" * 20_000,
        "1-" * 10_000,
        "a." * 10_000 + "@" * 10_000,
        "1." * 10_000,
        ":" * 20_000,
        "+1 " * 9_000,
    ):
        assert len(find_personal_data([piece])) < 5
    assert find_personal_data([]) == []
    assert {"email", "card"} < set(RULES)
