"""Files that are dropped into a conversation, as text in pages: PDF, HTML, and whatever is text."""

import io
import logging
from html.parser import HTMLParser
from typing import Any

from clearseek.config.errors import InputError
from clearseek.serve.errors import KnownMistake
from clearseek.serve.history import encodings

_MOST_CHARACTERS = 4_000_000
_MOST_PAGES = 5000
_UNREAD = {
    "script",
    "style",
    "noscript",
    "template",
    "svg",
    "title",
}  # all words of a head: its tags may be left out
_BREAKS = {
    "p",
    "div",
    "br",
    "li",
    "tr",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "section",
    "article",
    "pre",
    "table",
}
_LINES_PER_PAGE = 60  # of what has no pages of its own, so that a place in it can be named


def read_file(name: str, content: bytes) -> dict[str, Any]:
    """`{name, pages: [{number, text}]}`. InputError for what holds no text that can be read."""
    if not content.strip():
        raise KnownMistake("file_empty", f"{name}: there is no text in it, the file is empty", name=name)
    if content.startswith(b"%PDF-"):
        pages = _pdf(name, content)
    else:
        text = _decode(name, content)
        is_html = name.lower().endswith((".html", ".htm", ".xhtml")) or text[
            :200
        ].lstrip().lower().startswith(("<!doctype html", "<html"))
        pages = _split(_html(text) if is_html else text)
    if not any(page.strip() for page in pages):
        raise KnownMistake(
            "file_without_text",
            f"{name}: there is no text in it (a scanned page is a picture of text)",
            name=name,
        )
    if sum(map(len, pages)) > _MOST_CHARACTERS:
        raise KnownMistake(
            "file_too_long",
            f"{name}: more than {_MOST_CHARACTERS} characters; cut it into parts",
            name=name,
            n=_MOST_CHARACTERS,
        )
    return {"name": name, "pages": [{"number": number, "text": page} for number, page in enumerate(pages, 1)]}


def _pdf(name: str, content: bytes) -> list[str]:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(
        logging.CRITICAL
    )  # what is wrong with a file is told to who dropped it
    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise KnownMistake(
                "file_encrypted", f"{name}: it is encrypted; save it without a password first", name=name
            )
        if len(reader.pages) > _MOST_PAGES:
            raise KnownMistake(
                "file_of_too_many_pages",
                f"{name}: more than {_MOST_PAGES} pages; cut it into parts",
                name=name,
                n=_MOST_PAGES,
            )
        return [page.extract_text().strip() for page in reader.pages]
    except InputError:
        raise
    except (
        PyPdfError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        RecursionError,
        OSError,
    ) as error:
        raise KnownMistake("file_broken", f"{name}: can't be read as PDF ({error})", name=name) from None


def _decode(name: str, content: bytes) -> str:
    if b"\0" in content[:4096] and not encodings.has_mark(content):
        raise KnownMistake(
            "file_of_no_text",
            f"{name}: is no text; PDF, HTML, Markdown, code and plain text can be read",
            name=name,
        )
    text = encodings.decode(content)
    if text is None:
        raise KnownMistake(
            "file_encoding",
            f"{name}: its letters are in no encoding that is known; save it as UTF-8",
            name=name,
        )
    return text.replace("\r\n", "\n")


def _split(text: str) -> list[str]:
    """Pages of lines; a short text is one."""
    lines = text.splitlines()
    if len(lines) <= 2 * _LINES_PER_PAGE:
        return [text]
    return [
        "\n".join(lines[start : start + _LINES_PER_PAGE]) for start in range(0, len(lines), _LINES_PER_PAGE)
    ]


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unread = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unread += tag in _UNREAD
        if tag in _BREAKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._unread = max(self._unread - (tag in _UNREAD), 0)
        if tag in _BREAKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self.parts.append(data)


def _html(text: str) -> str:
    parser = _Text()
    parser.feed(text)
    parser.close()
    lines = [" ".join(line.split()) for line in "".join(parser.parts).splitlines()]
    kept = [line for place, line in enumerate(lines) if line or (place and lines[place - 1])]
    return "\n".join(kept).strip()
