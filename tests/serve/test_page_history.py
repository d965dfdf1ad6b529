"""The store of conversations: what is found, what is sealed, what is gone, and what goes from file to file."""

import json
import os
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearseek.config.errors import InputError
from clearseek.serve.errors import ApiError
from clearseek.serve.history import histories, store, transfer, words
from clearseek.serve.history.histories import Histories
from clearseek.serve.history.history import History
from clearseek.serve.history.records import Conversation, Message
from clearseek.serve.history.store import Locked
from clearseek.text.documents import document_from_row

ORPHAN = '{"clearseek": 1, "conversations": [{"messages": [{"id": "b", "parent": "a", "role": "user", "text": ""}]}]}'
CANARY = "강화학습카나리아7f3a"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kept" / "history.db"


@pytest.fixture
def history(path):
    history = History(path)
    history.set_keeps(True)
    yield history
    history.close()


def test_who_asks_first_from_many_threads_gets_one_history(tmp_path, monkeypatch):
    """A page that writes while it still starts would lose its conversation in the other history."""

    class Slow(History):
        def __init__(self, path):
            time.sleep(0.05)
            super().__init__(path)

    monkeypatch.setattr(histories, "History", Slow)
    opened = Histories(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(opened.of, [""] * 8))
    assert all(one is found[0] for one in found)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(found[0].set_keeps, [True] * 8))
    assert found[0].keeps
    found[0].close()


def told(history, *texts, title="", keep=None):
    """A conversation of turns."""
    one = history.add(Conversation(title=title or texts[0]), keep)
    parent = None
    for number, text in enumerate(texts):
        message = Message(one.id, parent, ("user", "assistant")[number % 2], text, created=1e9 + number)
        history.put(message)
        parent = one.leaf = message.id
    history.change(one)
    return one


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ("강화", 0), ("학습", 0), ("강화학습", 0), ("헌법", 1), ("生命", 2), ("研究", 2), ("生命科学", 2),
        ("Gradient", 0), ("grad", 0), ("학", 0), ("ＧＲＡＤ", 0), ("법원은 재판", 1),
    ],
)  # fmt: skip
def test_two_syllables_are_found_and_nothing_else(history, wanted, number):
    texts = ["강화학습의 gradient 추정", "헌법재판소와 법원은 재판한다", "生命科学研究的方法"]
    ids = [told(history, text, title="t").id for text in texts]
    assert [found.head.id for found in history.find(wanted)] == [ids[number]]


@pytest.mark.parametrize("wanted", ["화학", "研究生命", "습학", "radient", '"', "*", "AND", "NOT x", ""])
def test_what_is_not_there_is_not_found(history, wanted):
    for text in ("강화 학습의 gradient", "生命科学 研究"):
        told(history, text, title="t")
    assert history.find(wanted) == []


@given(st.text(max_size=20))
def test_whatever_is_typed_is_a_query_that_sqlite_takes(text):
    index = words.Index()
    index.put("c", "m", {"text": text})
    assert index.find(text, 5) in ([("c", "m", "text")], [])
    assert bool(index.find(text, 5)) == bool(words.query(text))


def test_found_words_stand_in_their_excerpt(history):
    told(history, "앞 " * 100 + "강화학습" + " 뒤" * 100, title="t")
    (found,) = history.find("강화")
    assert found.is_kept
    assert found.message
    assert found.where == "text"
    assert "강화학습" in found.excerpt
    assert len(found.excerpt) < 100


def test_thoughts_and_files_are_found_and_say_where(history):
    one = told(history, "요약해 줘", "네", title="t")
    asked, answer = history.messages(one.id)
    assert history.find("보상") == history.find("보고서") == []  # the index is made
    asked.files = [
        {"name": "보고서.pdf", "pages": [{"number": 1, "text": "첫 쪽"}, {"number": 2, "text": "보상 함수"}]},
        {"name": "other.md", "pages": [{"number": 1, "text": "nothing"}]},
    ]
    answer.thought = "먼저 가설을 세운다"
    history.put_all([asked, answer])
    for _ in range(2):  # as it is written, and made anew
        places = {word: history.find(word) for word in ("보상", "보고서", "가설", "요약", "보상 가설")}
        assert {word: [(f.message, f.where, f.file) for f in found] for word, found in places.items()} == {
            "보상": [(asked.id, "file", "보고서.pdf")],
            "보고서": [(asked.id, "file", "보고서.pdf")],
            "가설": [(answer.id, "thought", "")],
            "요약": [(asked.id, "text", "")],
            "보상 가설": [],
        }
        assert "보상 함수" in places["보상"][0].excerpt
        history._forget_index()


def test_a_conversation_comes_back_after_the_server_has_ended(history, path):
    one = told(history, "질문", "답", "다음")
    one.pinned, one.folder = True, "수학"
    history.change(one)
    history.close()
    again = History(path)
    ((head, is_kept),) = again.all()
    assert is_kept
    assert (head.title, head.pinned, head.folder) == ("질문", True, "수학")
    assert [message.text for message in again.branch(head.id, head.leaf)] == ["질문", "답", "다음"]
    again.close()


def test_branches_stay_beside_each_other(history):
    one = told(history, "질문", "답")
    question, answer = history.messages(one.id)
    other = Message(one.id, question.id, "assistant", "다른 답")
    history.put(other)
    assert [m.text for m in history.branch(one.id, other.id)] == ["질문", "다른 답"]
    assert [m.text for m in history.branch(one.id, answer.id)] == ["질문", "답"]


def test_nothing_is_written_unless_it_is_chosen(path):
    history = History(path)
    one = told(history, CANARY)
    assert not path.parent.exists()
    assert history.find("카나리아")[0].head.id == one.id
    history.set_keeps(True)
    told(history, CANARY + "둘", keep=False)
    assert CANARY.encode() not in path.read_bytes()
    told(history, CANARY)
    assert CANARY.encode() in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_what_was_not_kept_can_be_kept_later(path):
    history = History(path)
    one = told(history, CANARY, "답", title="제목")
    with pytest.raises(InputError, match="choose to keep them first"):
        history.keep(one.id)
    history.set_keeps(True)
    assert not history.is_kept(one.id)
    history.keep(one.id)
    history.keep(one.id)
    assert [(head.id, is_kept) for head, is_kept in history.all()] == [(one.id, True)]
    history.put(Message(one.id, one.leaf, "user", "다음"))
    assert history.find("카나리아")[0].is_kept
    history.close()
    again = History(path)
    assert [m.text for m in again.messages(one.id)] == [CANARY, "답", "다음"]
    again.set_passphrase("p")
    again.lock()
    other = told(again, "둘", keep=False)
    with pytest.raises(Locked):
        again.keep(other.id)
    assert [m.text for m in again.messages(other.id)] == ["둘"]
    with pytest.raises(ApiError, match="no conversation"):
        again.keep("none")
    again.close()


def test_deleting_leaves_nothing_in_the_file(history, path):
    keep = told(history, "이것은 남는다", "응")
    one = told(history, CANARY, CANARY * 1000)
    assert CANARY.encode() in path.read_bytes()
    history.delete(one.id)
    assert all(CANARY.encode() not in file.read_bytes() for file in path.parent.iterdir())
    assert [head.id for head, _ in history.all()] == [keep.id]
    with pytest.raises(ApiError, match="no conversation"):
        history.get(one.id)
    history.delete_all()
    assert list(path.parent.iterdir()) == []
    assert not history.keeps


def test_the_journal_is_overwritten_after_every_change(history, path, monkeypatch, tmp_path):
    """It holds pages as they were before: it may be neither left as it is, nor unlinked with that in it."""
    one = told(history, CANARY, CANARY * 1000)
    journal, same = Path(f"{path}-journal"), tmp_path / "same"
    os.link(journal, same)
    written = []
    overwrite = store._overwrite

    def watched(descriptor):
        written.append(same.read_bytes())
        overwrite(descriptor)
        assert same.stat().st_size == 0

    monkeypatch.setattr(store, "_overwrite", watched)
    history.set_passphrase("p")
    history.set_passphrase(None)
    history.delete(one.id)
    assert any(CANARY.encode() in content for content in written)
    assert journal.samefile(same)
    assert same.read_bytes() == b""


def test_a_change_that_was_cut_off_is_undone_and_its_journal_overwritten(history, path, tmp_path):
    one = told(history, CANARY, CANARY * 5000)
    history.close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA cache_size = 1")  # pages are written before the change is whole
    database.execute("UPDATE messages SET body = zeroblob(length(body) / 2)")
    crashed, journal = tmp_path / "crashed.db", tmp_path / "crashed.db-journal"
    shutil.copy(path, crashed)
    shutil.copy(f"{path}-journal", journal)
    database.rollback()
    database.close()
    assert CANARY.encode() in journal.read_bytes()
    with journal.open("rb") as left:
        again = History(crashed)
        assert [m.text for m in again.messages(one.id)] == [CANARY, CANARY * 5000]
        assert left.read() == b""
    again.close()


def test_two_servers_share_a_file(history, path):
    other = History(path)
    with ThreadPoolExecutor(2) as threads:
        said = list(threads.map(lambda each: [told(each, f"말 {n}") for n in range(12)], (history, other)))
    assert {head.id for head, _ in other.all()} == {one.id for each in said for one in each}
    other.close()


def test_a_passphrase_seals_everything(history, path):
    one = told(history, CANARY, "답 " + CANARY, title=CANARY)
    history.set_passphrase("바른 말")
    assert CANARY.encode() not in path.read_bytes()
    assert history.find("카나리아")[0].head.id == one.id
    history.lock()
    assert history.all() == []
    assert history.find("카나리아") == []
    for act in (lambda: history.get(one.id), lambda: history.messages(one.id)):
        with pytest.raises(Locked):
            act()
    with pytest.raises(InputError, match="not the history's passphrase"):
        history.unlock("다른 말")
    history.unlock("바른 말")
    assert [m.text for m in history.messages(one.id)] == [CANARY, "답 " + CANARY]
    history.close()
    again = History(path)
    assert again.is_locked
    again.unlock("바른 말")
    again.set_passphrase(None)
    assert CANARY.encode() in path.read_bytes()
    assert not again.is_sealed
    again.close()


def test_sealed_records_cannot_change_places(history, path):
    one, other = told(history, "하나"), told(history, "둘")
    history.set_passphrase("p")
    history.close()
    database = sqlite3.connect(path)
    (body,) = database.execute("SELECT body FROM conversations WHERE id = ?", (one.id,)).fetchone()
    database.execute("UPDATE conversations SET body = ? WHERE id = ?", (body, other.id))
    database.commit()
    database.close()
    again = History(path)
    again.unlock("p")
    with pytest.raises(InputError, match="can't be opened"):
        again.get(other.id)
    again.close()


def test_another_file_is_not_taken_for_a_history(tmp_path):
    other = tmp_path / "notes.db"
    other.write_text("these are notes " * 100)
    with pytest.raises(InputError, match="no history of conversations"):
        History(other)
    newer = tmp_path / "newer.db"
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="newer clearseek"):
        History(newer)


def test_an_empty_passphrase_and_nothing_to_seal_are_refused(history, tmp_path):
    with pytest.raises(InputError, match="empty passphrase"):
        history.set_passphrase("")
    with pytest.raises(InputError, match="nothing to encrypt"):
        History(tmp_path / "none.db").set_passphrase("p")
    with pytest.raises(InputError, match="without a place"):
        History().set_keeps(True)


def full(history):
    one = told(history, "질문 **하나**", "답", "## User\n둘", "답 둘", title="제목")
    answer = history.messages(one.id)[1]
    answer.thought = "생각\n\n- 하나"
    history.put(answer)
    history.put(Message(one.id, answer.parent, "assistant", "다른 답", state="stopped"))
    return one


def shape(messages):
    """A tree without ids."""
    by_id = {m.id: m for m in messages}
    return [
        (m.role, m.text, m.thought, m.state, by_id[m.parent].text if m.parent else None) for m in messages
    ]


def test_json_holds_every_branch(history):
    one = full(history)
    messages = history.messages(one.id)
    ((head, again),) = transfer.read(transfer.write([(one, messages)], "json"))
    assert shape(again) == shape(messages)
    assert head.title == "제목"
    assert head.id != one.id
    assert [m.text for m in again if m.id == head.leaf] == ["답 둘"]


def test_markdown_comes_back(history):
    one = full(history)
    text = transfer.write([(one, history.messages(one.id))] * 2, "md")
    first, second = transfer.read(text)
    assert shape(first[1]) == shape(second[1]) == shape(history.branch(one.id, one.leaf))
    assert first[0].title == "제목"


def test_json_lines_are_what_fine_tuning_reads(history):
    one = full(history)
    one.settings["system"] = "짧게"
    lines = transfer.write([(one, history.messages(one.id))], "jsonl").splitlines()
    documents = [document_from_row(json.loads(line), f"line {n}") for n, line in enumerate(lines)]
    assert [(d.thought, d.answer) for d in documents] == [("생각\n\n- 하나", "답"), ("", "답 둘")]
    assert [m["content"] for m in documents[1].history] == ["짧게", "질문 **하나**", "답", "## User\n둘"]
    [(head, messages)] = transfer.read("\n".join(lines))
    assert head.settings == {"system": "짧게"}
    assert [(m.text, m.thought) for m in messages] == [
        ("질문 **하나**", ""), ("답", "생각\n\n- 하나"), ("## User\n둘", ""), ("답 둘", ""),
    ]  # fmt: skip


def test_a_line_of_a_text_may_end_as_unicode_has_it(history):
    one = told(history, "a\u2028b\u0085c", "d\x1ce")
    [(_, messages)] = transfer.read(transfer.write([(one, history.messages(one.id))], "jsonl"))
    assert [m.text for m in messages] == ["a\u2028b\u0085c", "d\x1ce"]


def test_markdown_keeps_files_and_texts_about_its_own_marks(history):
    mark = "<!-- clearseek: user -->"
    one = told(history, "요약해 줘", f"{mark}\n\\{mark}")
    said = history.messages(one.id)[0]
    said.files = [{"name": "a.txt", "pages": [{"number": 1, "text": "파일 내용"}]}]
    history.put(said)
    [(_, messages)] = transfer.read(transfer.write([(one, history.messages(one.id))], "md"))
    assert (
        messages[0].text
        == "[file name]: a.txt\n[file content begin]\n[page 1]\n파일 내용\n[file content end]\n요약해 줘"
    )
    assert messages[1].text == f"{mark}\n\\{mark}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("# notes", "holds no conversations"),
        ("{}", "holds no conversations"),
        ('[{"title": "t", "mapping": {}}]', "holds no conversations"),
        ('{"conversations": [], "version": 2}', "holds no conversations"),
        ('{"clearseek": 1, "conversations": [{"messages": 1}]}', "can't be imported: conversations.0.messages"),
        ('{"clearseek": 1, "conversations": [', "can't be imported"),
        ('{"messages": [{"role": "user"}]}', "line 1"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "role 'tool'"),
        (ORPHAN, "follows 'a'"),
    ],
)  # fmt: skip
def test_what_is_no_export_is_refused(text, why):
    with pytest.raises(InputError, match=why):
        transfer.read(text)
