"""Sources: the same documents in the same order, and every wrong one named by its place."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from clearseek.config.errors import InputError, RunError
from clearseek.text.documents import Conversation, Document, TextDocument
from clearseek.text.sources import Source, count_overlap, open_source


def write(path: Path, *rows: object) -> Path:
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8"
    )
    return path


def pages(folder: Path, languages: tuple[str, ...] = ("en", "ko"), count: int = 7) -> Path:
    for language in languages:
        (folder / language).mkdir(parents=True)
        for number in range(count):
            (folder / language / f"{number}.md").write_text(f"{language} page {number}", encoding="utf-8")
    return folder


def texts(source: Source) -> list[str]:
    return [document.text for document in source if isinstance(document, TextDocument)]


def only(path: Path) -> Document:
    (document,) = open_source(path)
    return document


def test_a_folder_gives_its_pages_by_path(tmp_path: Path) -> None:
    folder = pages(tmp_path / "docs", count=2)
    (folder / "about.txt").write_bytes("\ufeffroot\r\n".encode())
    (folder / "blank.md").write_text(" \n")
    (folder / "picture.png").write_bytes(b"\xff")
    source = open_source(folder)
    assert texts(source) == ["root\r\n", "en page 0", "en page 1", "ko page 0", "ko page 1"]
    assert texts(source) == texts(open_source(folder, kind="folder"))


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    first, second = pages(tmp_path / "a"), pages(tmp_path / "b")
    assert open_source(first).fingerprint == open_source(second).fingerprint
    (second / "en" / "0.md").write_text("changed")
    assert open_source(first).fingerprint != open_source(second).fingerprint
    (first / "en" / "0.md").rename(first / "en" / "00.md")
    assert open_source(first).fingerprint != open_source(pages(tmp_path / "c")).fingerprint
    line = write(tmp_path / "a.jsonl", {"text": "a"})
    before = open_source(line).fingerprint
    assert before != open_source(write(line, {"text": "b"})).fingerprint


def test_every_nth_page_of_each_language_is_held_out(tmp_path: Path) -> None:
    training, held_out = open_source(pages(tmp_path)).split(3)
    assert texts(held_out) == ["en page 2", "en page 5", "ko page 2", "ko page 5"]
    assert len(texts(training)) == 10
    assert count_overlap(training, held_out) == 0
    assert len({training.fingerprint, held_out.fingerprint, open_source(tmp_path).fingerprint}) == 3


def test_a_copy_of_a_held_out_page_is_not_trained_on(tmp_path: Path) -> None:
    folder = pages(tmp_path)
    (folder / "en" / "0.md").write_text("ko page 2", encoding="utf-8")
    training, held_out = open_source(folder).split(3)
    assert "ko page 2" in texts(held_out)
    assert "ko page 2" not in texts(training)
    assert count_overlap(training, held_out) == 0


def test_splits_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    source = open_source(pages(tmp_path))
    with pytest.raises(InputError, match="use 2 or more"):
        source.split(1)
    with pytest.raises(InputError, match="too few documents to hold out every 20th"):
        list(source.split(20)[0])


@pytest.mark.parametrize(
    ("row", "thought", "answer"),
    [
        ({"prompt": "q", "answer": "a"}, "", "a"),
        ({"prompt": "q", "thought": "t", "answer": "a"}, "t", "a"),
        ({"prompt": "q", "completion": "<think>t</think>a"}, "t", "a"),
        ({"prompt": "q", "completion": "t</think>a</think>b"}, "t", "a</think>b"),
        ({"prompt": "q", "completion": "a"}, "", "a"),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "t</think>a"}]},
            "t",
            "a",
        ),
        (
            {
                "prompt": [{"role": "user", "content": "q"}],
                "completion": [{"role": "assistant", "content": "a", "reasoning_content": "t"}],
            },
            "t",
            "a",
        ),
    ],
)
def test_conversations_in_every_layout(tmp_path: Path, row: object, thought: str, answer: str) -> None:
    document = only(write(tmp_path / "a.jsonl", "", row))
    assert isinstance(document, Conversation)
    assert document.history == ({"role": "user", "content": "q"},)
    assert (document.thought, document.answer) == (thought, answer)
    assert document.place.endswith("a.jsonl line 2")


USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 1: broken JSON at column"),
        ("[1]", "expected an object with fields, found list"),
        ({"txet": "a"}, "unknown field 'txet'; did you mean 'text'"),
        ({"text": "a", "meta": 1}, "unknown field 'meta'; name it in ignored_fields"),
        ({"prompt": "a"}, r"fields prompt make no document; expected one of text \| messages"),
        ({"text": "a", "prompt": "b"}, r"fields prompt\+text make no document"),
        ({}, "make no document"),
        ({"text": 5}, "text must be text, found int"),
        ('{"text": "\\ud800"}', "half a character"),
        ({"prompt": "q", "answer": None}, "answer must be text"),
        ({"messages": []}, "must be a list of messages"),
        ({"messages": "q"}, "must be a list of messages"),
        ({"messages": [USER]}, "the last message must be the assistant's"),
        ({"messages": [ASSISTANT]}, "needs a message before"),
        ({"messages": [{"role": "user"}, ASSISTANT]}, r"messages\[0\]: a message needs role and content"),
        ({"messages": [{**USER, "role": "tool"}, ASSISTANT]}, "role must be one of"),
        ({"messages": [{**USER, "weight": 1}, ASSISTANT]}, "unknown field 'weight' in a message"),
        ({"messages": [{**USER, "content": 1}, ASSISTANT]}, "content must be text"),
    ],
)
def test_wrong_rows_are_named_by_line(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        only(write(tmp_path / "bad.jsonl", row))
    assert "bad.jsonl line 1" in str(caught.value)


def test_fields_are_ignored_only_when_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "a", "meta": 1})
    assert texts(open_source(path, ignored_fields=("meta",))) == ["a"]


def test_files_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"latin\.txt: not UTF-8 text \(byte 3\)"):
        list(open_source(tmp_path / "docs"))
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl line 2: not UTF-8 text"):
        list(open_source(tmp_path / "a.jsonl"))


def test_wrong_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file or folder.*huggingface"):
        open_source(tmp_path / "none")
    with pytest.raises(InputError, match="no such file"):
        open_source(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="no such folder"):
        open_source(tmp_path / "none", kind="folder")
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(InputError, match=r"not a folder, \.jsonl or \.parquet"):
        open_source(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"holds no \.txt or \.md file"):
        list(open_source(tmp_path))
    with pytest.raises(InputError, match="kind of source 'csv' is not known"):
        open_source(tmp_path / "a.csv", kind="csv")


def test_parquet_rows_are_read_as_lines_are(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    table = {"prompt": ["q", "z"], "answer": ["a", "b"], "thought": ["t", None], "meta": [1, 2]}
    parquet.write_table(pyarrow.table(table), path)
    first, second = open_source(path, ignored_fields=("meta",))
    assert isinstance(first, Conversation)
    assert isinstance(second, Conversation)
    assert (first.thought, second.thought, second.place) == ("t", "", f"{path} row 2")
    with pytest.raises(InputError, match=r"row 1: unknown field 'meta'"):
        list(open_source(path))
    with pytest.raises(InputError, match="no field 'mata' to ignore"):
        list(open_source(path, ignored_fields=("mata",)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"a\.parquet: not a whole Parquet file"):
        list(open_source(path))


@pytest.mark.parametrize("module", ["pyarrow", "datasets"])
def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a.parquet").write_bytes(b"")
    location, kind = (tmp_path / "a.parquet", None) if module == "pyarrow" else ("org/name", "huggingface")
    with pytest.raises(InputError, match=r"pip install 'clearseek\[data\]'"):
        list(open_source(location, kind))


class DatasetNotFoundError(FileNotFoundError):
    """Named as the library's."""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ConnectionError("couldn't reach"), InputError, "the hub can't be reached"),
        (ConnectionResetError("reset by peer"), RunError, "broke off.*run again"),
        (OSError(28, "No space left on device"), RunError, "broke off.*No space left"),
        (TimeoutError("read timed out"), RunError, "broke off"),
        (DatasetNotFoundError("doesn't exist"), InputError, "org/name.*doesn't exist"),
        (ValueError("Unknown split"), InputError, "Unknown split"),
    ],
)
def test_failed_downloads_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], message: str
) -> None:
    library = ModuleType("datasets")

    def load_dataset(path: str, name: str | None, split: str) -> None:
        assert (path, name, split) == ("org/name", "main", "train")
        raise error

    library.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
    source = open_source("org/name:main", kind="huggingface")
    with pytest.raises(kind, match=message) as caught:
        list(source)
    assert "\n" not in str(caught.value)


def test_data_sets_by_name_work_with_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "meta": [1, 2]})
    monkeypatch.setattr(datasets, "load_dataset", lambda path, name, split: made)
    source = open_source("org/name", kind="huggingface", ignored_fields=("meta",))
    assert texts(source) == ["a", "b"]
    assert source.fingerprint == open_source("org/name", kind="huggingface").fingerprint


def test_offline_is_said_by_the_library_too(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="the hub can't be reached"):
        list(open_source("clearseek-no-such/data-set", kind="huggingface"))
