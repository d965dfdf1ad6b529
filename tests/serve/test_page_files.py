"""Files that are dropped in: what is read of them, page by page, and what is refused in a line."""

import pytest

from clearseek.config.errors import InputError
from clearseek.serve.history.files import read_file
from tests.serve.page import browsing, needs_browser


def texts(name, content):
    return [page["text"] for page in read_file(name, content)["pages"]]


def test_html_loses_what_is_not_read():
    head = "<html><head><title>t</title><style>x</style></head>"
    html = f"{head}<body><h1>제목</h1><p>한 &amp; 둘<script>bad()</script></p></body></html>"
    assert texts("a.html", html.encode()) == ["제목\n\n한 & 둘"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
def test_text_in_the_encodings_that_people_have(encoding):
    assert texts("a.txt", "강화학습\r\n둘".encode(encoding)) == ["강화학습\n둘"]


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
