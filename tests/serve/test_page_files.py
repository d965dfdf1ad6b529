"""Files that are dropped in: what is read of them, page by page, and what is refused in a line."""

import re
from pathlib import Path

import pytest

from clearseek.config.errors import InputError
from clearseek.serve.history.encodings import decode
from clearseek.serve.history.files import read_file
from tests.serve.page import browsing, needs_browser

ROOT = Path(__file__).resolve().parents[2]


def texts(name, content):
    return [page["text"] for page in read_file(name, content)["pages"]]


def test_html_loses_what_is_not_read():
    head = "<html><head><title>t</title><style>x</style></head>"
    html = f"{head}<body><h1>제목</h1><p>한 &amp; 둘<script>bad()</script></p></body></html>"
    assert texts("a.html", html.encode()) == ["제목\n\n한 & 둘"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
def test_text_in_the_encodings_that_people_have(encoding):
    assert texts("a.txt", "강화학습\r\n둘".encode(encoding)) == ["강화학습\n둘"]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gbk", "你好，世界"),
        ("gbk", "你好"),
        ("gbk", "测试"),
        ("gb2312", "强化学习是机器学习的一个领域，强调如何基于环境而行动。"),
        ("gb18030", "朱镕基，𠮷"),
        ("big5", "你好"),
        ("big5", "繁體中文，你好。"),
        ("big5", "這是一個測試檔案"),
        ("cp949", "안녕"),
        ("cp949", "가"),
        ("cp949", "회의록"),
        ("cp949", "똠방각하와 펲시콜라"),
        ("cp949", "ㅋㅋㅋ 그래"),
        ("cp949", "國民의 權利와 義務"),
        ("euc-kr", "강화학습은 보상을 늘린다."),
        ("utf-16-le", "\ufeff你好 가"),
        ("utf-16-be", "\ufeff你好 가"),
        ("utf-32", "你好 가"),
    ],
)
def test_each_countrys_letters_are_its_own(encoding, text):
    assert texts("a.txt", text.encode(encoding))[0].removeprefix("\ufeff") == text.removeprefix("\ufeff")


@pytest.mark.parametrize(("name", "encoding"), [("README.ko.md", "cp949"), ("README.zh.md", "gb18030")])
def test_every_line_of_a_manual_is_read_by_itself(name, encoding):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    written = [line.encode(encoding, "ignore") for line in lines if re.search("[一-鿿가-힣]{3}", line)]
    assert len(written) > 50
    assert [line.decode(encoding) for line in written if decode(line) != line.decode(encoding)] == []


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("shift_jis", "強化学習です"), ("big5", "乂"), ("windows-1252", "Größe"), ("gb2312", "벌")],
)
def test_html_says_its_encoding_and_a_wrong_word_is_passed_over(encoding, text):
    """Of `gb2312` nothing is true here: the bytes are no such letters, but UTF-8."""
    written = text.encode("utf-8" if text == "벌" else encoding)
    head = f'<html><head><meta charset="{encoding}"><title>t</title></head><body>'.encode()
    assert texts("a.html", head + written) == [text]
    other = f"<meta http-equiv=Content-Type content='text/html; charset={encoding}'>".encode()
    assert texts("a.html", other + written) == [text]
    assert texts("a.html", b"<meta charset=hex><p>" + "가나다".encode("cp949")) == ["가나다"]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("<html><head><title>제목</title><style>x</style>", "<body><p>글"),
        ("<!doctype html><head><meta charset=utf-8><title>제목</title>", "<p>글"),
        ("<head><script>bad()</script>", "<h1>글</h1>"),
        ("<head>", "<body>글"),
        ("<head><noscript><p>no</noscript></head>", "<body>글"),
    ],
)
def test_html_whose_head_has_no_end_is_read(head, body):
    assert texts("a.html", f"{head}{body}".encode()) == ["글"]


def test_long_texts_have_pages_that_hold_every_line():
    lines = [f"line {number}" for number in range(500)]
    pages = read_file("a.py", "\n".join(lines).encode())["pages"]
    assert [page["number"] for page in pages] == list(range(1, 10))
    assert "\n".join(page["text"] for page in pages).splitlines() == lines


def pdf(*pages):
    """A PDF by hand: a page for each text, whose letters have numbers of their own and a table that tells them."""
    letters = sorted({letter for page in pages for letter in page})
    numbers = {letter: number for number, letter in enumerate(letters, 1)}
    table = "\n".join(f"<{numbers[one]:04x}> <{one.encode('utf-16-be').hex()}>" for one in letters)
    table = f"""/CIDInit /ProcSet findresource begin begincmap 1 begincodespacerange <0000> <ffff> endcodespacerange
{len(letters)} beginbfchar\n{table}\nendbfchar endcmap end"""
    kids = " ".join(f"{6 + 2 * place} 0 R" for place in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>",
        "<< /Type /Font /Subtype /Type0 /BaseFont /F /Encoding /Identity-H /DescendantFonts [4 0 R]"
        " /ToUnicode 5 0 R >>",
        "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /F /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity)"
        " /Supplement 0 >> >>",
        stream(table),
    ]
    for place, page in enumerate(pages):
        hexes = "".join(f"{numbers[letter]:04x}" for letter in page)
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources << /Font << /F 3 0 R >> >> "
            f"/Contents {7 + 2 * place} 0 R >>"
        )
        objects.append(stream(f"BT /F 12 Tf 50 700 Td <{hexes}> Tj ET"))
    content, places = b"%PDF-1.7\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(content))
        content += f"{number} 0 obj\n{one}\nendobj\n".encode()
    rows = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{rows}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>"
    return content + f"{end}\nstartxref\n{len(content)}\n%%EOF".encode()


def stream(text):
    return f"<< /Length {len(text.encode())} >>\nstream\n{text}\nendstream"


def test_a_pdf_in_korean_and_chinese_has_its_pages():
    pages = read_file("a.pdf", pdf("강화학습은 보상을 늘린다.", "强化学习 reward"))["pages"]
    assert pages == [
        {"number": 1, "text": "강화학습은 보상을 늘린다."},
        {"number": 2, "text": "强化学习 reward"},
    ]


def test_a_pdf_without_text_is_a_picture():
    with pytest.raises(InputError, match="a scanned page is a picture of text"):
        read_file("a.pdf", pdf(" "))


@needs_browser
def test_a_pdf_that_a_browser_printed_has_its_pages():
    body = "<h1>강화학습</h1><p>보상을 늘린다.</p><p style='break-before: page'>두 번째 쪽 強化</p>"
    with browsing() as browser:
        page = browser.new_page()
        page.set_content(f"<meta charset=utf-8>{body}")
        printed = page.pdf()
    said = [
        "".join(text.split()) for text in texts("b.pdf", printed)
    ]  # where words end is the reader's guess
    assert said == ["강화학습보상을늘린다.", "두번째쪽強化"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"%PDF-1.7 broken", "can't be read as PDF"),
        (b"\x89PNG\0\0", "is no text"),
        (b"x" * 4_000_001, "more than 4000000 characters"),
    ],
)
def test_what_can_not_be_read_is_refused(content, why):
    with pytest.raises(InputError, match=why):
        read_file("a", content)
