"""The search for what was typed: finds it in names and contents, in UTF-8 and UTF-16, across pieces, since a moment."""

import os
import time

import pytest

from clearseek.privacy import search

TEXT = "canary0123456789abcdef"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        b"\0" * 5000 + TEXT.encode() + b"\xff",
        f"a{TEXT}".encode("utf-16"),
        b"x" * 9 + TEXT.encode(),
    ],
)
def test_it_is_found_whatever_it_stands_in(tmp_path, monkeypatch, content):
    monkeypatch.setattr(search, "_PIECE", 16)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(content)
    assert search.find([TEXT, "another"], 0, tmp_path) == {
        TEXT: [str(tmp_path / "folder" / "file")],
        "another": [],
    }


def test_it_is_found_in_a_name(tmp_path):
    (tmp_path / TEXT).touch()
    assert search.find([TEXT], 0, tmp_path)[TEXT] == [str(tmp_path / TEXT)]


def test_what_was_written_before_is_not_read(tmp_path):
    path = tmp_path / "old"
    path.write_text(TEXT)
    assert search.find([TEXT], time.time() + 60, tmp_path)[TEXT] == []
    os.utime(path, (0, 0))  # a time that was put back is told by the other one
    assert search.find([TEXT], time.time() - 60, tmp_path)[TEXT] == [str(path)]
