"""Files that are dropped in: what is read of them, page by page, and what is refused in a line."""

import pytest

from clearseek.config.errors import InputError
from clearseek.serve.history.files import read_file


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


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no text in it"),
        (b"%PDF-1.7 broken", "can't be read as PDF"),
        (b"\x89PNG\0\0", "is no text"),
        (b"x" * 4_000_001, "more than 4000000 characters"),
    ],
)
def test_what_can_not_be_read_is_refused(content, why):
    with pytest.raises(InputError, match=why):
        read_file("a", content)
