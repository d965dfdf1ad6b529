"""`clearseek data`: the table, documents, the page, and one line for what is wrong."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter

import pytest

from clearseek.cli.main import main
from clearseek.ledger.append import LineFile
from clearseek.ledger.data_words import phrases
from clearseek.ledger.lines import encode_line
from clearseek.ledger.log import Ledger, read
from clearseek.ledger.record import load_run
from clearseek.ledger.report import write_report
from tests.data.filtered_run import EMAIL, RESIDENT, pages

EVIL = "<script>alert(1)</script><b>"


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command prints; it must succeed."""
    assert main(["data", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    """The one line of an error."""
    assert main(["data", *words]) == code
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


def test_the_table_names_every_source_with_its_licence_and_what_to_look_at(run, capsys) -> None:
    out = told(capsys, str(run))
    rows = {line.split()[0]: line for line in out.splitlines() if line and line[0].isalpha()}
    assert {
        "tokenizer/0",
        "pretrain/0",
        "pretrain/1",
        "pretrain/2",
        "pretrain/3",
        "rl/problems",
    } <= rows.keys()
    assert re.search(r"pretrain/0 +files +CC-BY-4.0 +22 of 30 .*en\s95%, ko\s5%", out)
    assert "pretrain/1: the licence is not stated" in out
    assert "dropped: min_chars 1, max_chars 1, languages 1, duplicates 1" in out
    assert "1 of 4 items of evaluation stand in it" in out
    assert "data/rl.jsonl: 0 examples written by the model of pretrain" in out


def test_one_source_is_shown_with_what_its_filters_dropped_and_documents(run, capsys) -> None:
    out = told(capsys, str(run), "--source", "pretrain/0", "--sample", "3")
    assert "near_duplicates (x-near.md): story4word0" in out
    assert "personal_data (x-email.md): Letters to the keeper go to [email]" in out
    assert out.count("pretrain/0, row ") == 3
    assert pages()["kept.md"] in out
    assert "pretrain/1" not in out


def test_a_text_is_searched_for_in_every_source(run, capsys) -> None:
    found = json.loads(told(capsys, str(run), "--grep", "BALLS", "--json"))["matches"]
    assert found["tokenizer/0"]["documents"] == 1
    assert "Tom has" in found["tokenizer/0"]["shown"][0]["text"]
    assert found["pretrain/0"] == {"documents": 0, "shown": []}
    korean = json.loads(told(capsys, str(run), "--grep", "등대지기는", "--json"))["matches"]
    assert korean["pretrain/0"]["documents"] == 1


def test_the_model_that_wrote_a_file_is_told(run, tmp_path, capsys) -> None:
    assert "pretrain/1: a model wrote it, as the recipe states: Reasoner-7B" in told(capsys, str(run))
    for language, word in (("en", "Written by the model"), ("ko", "글을 쓴 모델"), ("zh", "撰写模型")):
        page = tmp_path / f"{language}.html"
        told(capsys, str(run), "--html", str(page), "--language", language)
        words = Page(page.read_text(encoding="utf-8")).words
        assert words.count("Reasoner-7B") == 2
        assert words.count(word) == 1


def test_json_holds_every_record_and_the_dropped_samples(run, capsys) -> None:
    report = json.loads(told(capsys, str(run), "--json"))
    first = next(source for source in report["sources"] if source["id"] == "pretrain/0")
    recorded = next(
        r for r in read(run / "ledger.jsonl") if r["kind"] == "source" and r["stage"] == "pretrain"
    )
    assert {key: first[key] for key in ("rows", "bytes", "languages", "licence")} == {
        key: recorded[key] for key in ("rows", "bytes", "languages", "licence")
    }
    assert len(first["dropped_samples"]) == 8
    assert report["teachers"][0]["stage"] == "rl"
    assert "prev" not in json.dumps(report)


class Page(HTMLParser):
    """Tags, balance and words of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_needs_nothing_from_outside_and_masks_personal_data(run, tmp_path, capsys) -> None:
    told(capsys, str(run), "--html", str(tmp_path / "data.html"))
    html = (tmp_path / "data.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object"}
    assert "default-src 'none'" in html
    ids = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes.get("href") for tag, attributes in page.tags if tag == "a"]
    assert len(links) == 6
    assert all(link and link[1:] in ids for link in links)
    assert pages()["kept.md"] in page.words
    assert "Dropped by near_duplicates" in page.words
    assert "not stated" in page.words
    assert EMAIL not in html
    assert RESIDENT not in html


def test_the_page_speaks_three_languages_with_the_same_places(run, tmp_path, capsys) -> None:
    english = {key: fields(text) for key, text in phrases()["en"].items()}
    for language, words in (("ko", "밝혀지지 않음"), ("zh", "未声明")):
        assert {key: fields(text) for key, text in phrases()[language].items()} == english
        told(capsys, str(run), "--html", str(tmp_path / "data.html"), "--language", language)
        page = Page((tmp_path / "data.html").read_text(encoding="utf-8"))
        assert page.tags[0] == ("html", {"lang": {"ko": "ko", "zh": "zh-Hans"}[language]})
        assert words in page.words
        assert "not stated" not in page.words
        assert "Dropped by" not in page.words


def fields(text: str) -> set[str | None]:
    """The places of a phrase that are filled."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_what_a_document_or_a_recipe_says_is_escaped(run, tmp_path, capsys) -> None:
    copy = rewritten(
        run, tmp_path / "run", lambda r: r | {"name": EVIL, "licence": EVIL} if r["kind"] == "source" else r
    )
    told(capsys, str(copy), "--html", str(tmp_path / "data.html"))
    write_report(copy)
    for html in ((tmp_path / "data.html").read_text(), (copy / "report.html").read_text()):
        assert "<script>alert" not in html
        assert "&lt;script&gt;alert" in html


def test_a_damaged_record_does_not_keep_the_report_from_being_written(run, tmp_path) -> None:
    def damaged(record):
        if record["kind"] not in ("source", "filter", "teacher"):
            return record
        kept = ("line", "prev", "kind", "stage", "data")
        return {key: value if key in kept else EVIL for key, value in record.items()}

    copy = rewritten(run, tmp_path / "run", damaged)
    write_report(copy)
    assert "<script>alert" not in (copy / "report.html").read_text(encoding="utf-8")


def rewritten(run: Path, target: Path, change) -> Path:
    """A copy of a run with every record changed (None: left out) and the chain mended."""
    shutil.copytree(run, target)
    (target / "ledger.jsonl").unlink()
    with Ledger(target / "ledger.jsonl") as ledger:
        for record in read(run / "ledger.jsonl"):
            changed = change(record)
            if changed is not None:
                fields = {
                    key: value
                    for key, value in changed.items()
                    if key not in ("line", "prev", "kind", "stage")
                }
                ledger.append(changed["kind"], changed.get("stage"), **fields)
    return target


def test_the_report_has_a_section_on_the_data(run) -> None:
    write_report(run)
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "What it was trained on" in html
    assert "of 10 documents not stated" in html
    assert "None of these problems was in its training" not in html  # the tokenizer read one of them
    assert load_run(run).items_read == 1


def test_a_run_of_an_older_version_says_that_it_recorded_none(run, tmp_path, capsys) -> None:
    old = rewritten(
        run, tmp_path / "old", lambda r: None if r["kind"] in ("source", "filter", "teacher") else r
    )
    assert "an older clearseek made this run, which recorded no sources" in refused(capsys, 2, str(old))
    write_report(old)
    assert "What it was trained on" not in (old / "report.html").read_text(encoding="utf-8")


def test_a_run_that_has_read_nothing_says_so(tmp_path, capsys) -> None:
    with LineFile(tmp_path / "ledger.jsonl") as file:
        file.write(encode_line({"line": 0, "prev": "0" * 64, "kind": "run", "seed": 1}, canonical=True))
    assert "no stage of this run has read data yet" in refused(capsys, 2, str(tmp_path))


def test_a_half_copied_run_names_what_is_missing(run, tmp_path, capsys) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "data" / "pretrain" / "1.jsonl").unlink()
    assert "1.jsonl: can't be read" in refused(capsys, 1, str(copy), "--sample", "1")
    assert "pretrain/0" in told(capsys, str(copy))
    (copy / "data" / "pretrain" / "0.dropped.jsonl").unlink()
    assert re.search(
        r"0\.dropped\.jsonl, named in line \d+ of the ledger, cannot be read", refused(capsys, 1, str(copy))
    )


def test_changed_samples_and_documents_are_not_shown(run, tmp_path, capsys) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for name in ("0.dropped.jsonl", "1.jsonl"):
        path = copy / "data" / "pretrain" / name
        path.write_text(path.read_text(encoding="utf-8").replace("keeper", "reader"), encoding="utf-8")
    assert re.search(r"0\.dropped\.jsonl is not the file that line \d+", refused(capsys, 1, str(copy)))
    assert "is not what stage pretrain trained on" in refused(
        capsys, 1, str(copy), "--source", "pretrain/1", "--sample", "1"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--source", "pretrian"), "no source 'pretrian'; this run's are: tokenizer/0, pretrain/0"),
        (("--grep", " "), "--grep needs a text to look for"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_line(run, capsys, words, message) -> None:
    assert message in refused(capsys, 2, str(run), *words)


def test_a_directory_without_a_run_and_a_page_that_can_not_be_written(run, tmp_path, capsys) -> None:
    assert "has no ledger.jsonl" in refused(capsys, 2, str(tmp_path))
    assert "could not be written" in refused(
        capsys, 1, str(run), "--html", str(tmp_path / "no" / "data.html")
    )
