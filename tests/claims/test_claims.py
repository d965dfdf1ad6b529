"""Figures in documents: which count as measured, and that a wrong, missing or unsourced one is found."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clearseek.claims.blocks import blocks_of
from clearseek.claims.check import check_documents, documents_of, expanded
from clearseek.claims.records import record_output, record_run, write_record
from clearseek.cli.main import main
from clearseek.config.errors import InputError, RunError
from tests.ledger.sealed_run import sealed_run

ROOT = Path(__file__).resolve().parents[2]


def figures(document: str) -> list[str]:
    return [figure.text for block in blocks_of(document) for figure in block.figures]


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ("It solves 93.3 % of 300 problems.", ["93.3"]),
        ("76 and 61 % of guesses, 2.5 to 3 s, 1,234 tokens/s", ["76", "61", "2.5", "3", "1,234"]),
        ("between 5, 6 or 7 ms", ["5", "6", "7"]),
        ("trained in 6 min 23 s", ["6 min 23"]),
        ("7분, 메모리 0.8 GB, 3초", ["7", "0.8", "3"]),
        ("用了 7 分钟、0.8 GB 内存，快 1.5 倍", ["7", "0.8", "1.5"]),
        ("1.63 times as fast, 2× the size", ["1.63", "2"]),
        ("Python 3.11, R1, Qwen3-0.6B, int8, 64 tokens, 2026-11-29, port 8000, [9](a.md#5%)", []),
        ("the 95 % interval, 95 % 구간", []),
        ("type `--limit 5s` or ``90 %``", []),
        ("```text\n90 %\n```", []),
        ("| what | s |\n|---|---|\n| a 5 | 1.5 |\n| b | 2, then 3 |", ["1.5", "2", "3"]),
        (
            "| tokens/s | bf16 | int8 |\n|---|---|---|\n| 16 streams | 243, other 71 | 213 |",
            ["243", "71", "213"],
        ),
        ("| a | b |\n|---|---|\n| 4 | 93.3 % of 5 |", ["93.3"]),
        ("0.952 of the bare engine, a loss of 2.31, KL 0.003", ["0.952", "2.31", "0.003"]),
        ("Python ≥ 3.11, vLLM 0.32, arXiv:2107.06499, Apache-2.0, V3.2, Qwen2.5, §3.4, a 3.5B model", []),
        ("286 of 300 problems, 0 of the 87,538, 8 in 10, one of 5", ["286", "300", "0", "87,538"]),
        ("300개 중 286개, 300 道题中 286 道", ["300", "286", "300", "286"]),
        ("three times as fast, twice the size, half of it, three times a day", ["three", "twice"]),
        ("half the time, 두 배, 절반, 快三倍, 一半", ["half", "두", "절반", "三", "一半"]),
        ("## 2.1 Sources of 3 s\n\n### 4 Cost", ["3"]),
        ("1.4 million weights, 140만 개, 三 MB", ["1.4", "140"]),
        (
            "| a | n |\n|---|---|\n| 2 x | 93 |\n| b | **1,024** tokens, then 5 |\n| c | int8, 2026-11-29 |"
            "\n| d | 4-bit |\n| e | `7` |",
            ["93", "1,024"],
        ),
        ("---\nfit: 90 %\n---\nIt is 80 %.", ["80"]),
        ("- one 1 %\n- two 2 %", ["1", "2"]),
        ("It took 5\nmin and 1.1\nmillion", ["5", "1.1"]),
        ("Two keys:\n\n    a = 5  # 5 %\n    - b  # 6 %\n\nand 7 %.", ["7"]),
        ("- an item\n\n    goes on with 5 %\n\n  and 6 %", ["5", "6"]),
        ("down by −0.5 % and -3 ms", ["−0.5", "-3"]),
    ],
)
def test_what_counts_as_measured(document: str, found: list[str]) -> None:
    assert figures(document) == found


RECORD = {
    "speed": {"llama.cpp": {"tokens": 20.34}, "ours": {"tokens": 30.51}},
    "stages": [{"name": "sft", "seconds": 383.4, "score": 0.932}, {"name": "rl", "bytes": 863916032}],
    "printed": "stage  pass@1\nsft    93.2 %\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one record and a log."""
    (tmp_path / "docs/records").mkdir(parents=True)
    (tmp_path / "docs/records/run.json").write_text(json.dumps(RECORD))
    (tmp_path / "docs/log.md").write_text(
        "# Lab log\n\n## 2026-11-29: one\nIt took 1.63 s.\n\n## 2026-11-30: two\n9 s\n"
    )
    return tmp_path


def faults(checkout: Path, text: str) -> list[str]:
    path = checkout / "README.md"
    path.write_text(text)
    return [fault.why for fault in check_documents([path], checkout).faults]


RIGHT = [
    "It solves 93.2 %.\n<!-- claim: run stages.sft.score -->",
    "It solves 93 %. <!-- claim: run stages.0.score -->",
    "0.93 of all <!-- claim: run stages.0.score -->",
    "| a | n |\n|---|---|\n| tokens | 20.3 |\n<!-- claim: run speed.llama.cpp.tokens -->",
    "twice as fast <!-- claim: run speed.ours.tokens/speed.llama.cpp.tokens -->",
    "864 million bytes <!-- claim: run stages.rl.bytes -->",
    "It is 1.63 of theirs. <!-- logged: 2026-11-29: one -->",
    "It took 6 min 23 s and 0.86 GB\n<!-- claim: run stages.sft.seconds stages.rl.bytes -->",
    "It took 6.4 min\n\n<!-- claim: run stages.sft.seconds -->",
    "1.5 times\n<!-- claim: run speed.ours.tokens/speed.llama.cpp.tokens -->",
    "30.5 tokens/s, theirs 20.3 tokens/s\n<!-- claim: run speed.{ours,llama.cpp}.tokens -->",
    "93.2 % and 864 MB\n<!-- claim: run stages.sft.score run:stages.rl.bytes -->",
    "| a | b |\n|---|---|\n| x | 93.2 % |\n<!-- claim: run\n  stages.sft.score -->",
    "```text\nstage  pass@1\nsft    93.2 %\n```\n<!-- shown: run printed -->",
    "It took 1.63 s.\n<!-- logged: 2026-11-29: one -->",
    "At most 30 s.\n<!-- not measured: a limit of the server -->",
    "Write `<!-- claim: RECORD PATH -->` behind it.",
    "```sh\nsleep 5 # 5 s\n```\nNothing is said here.",
]


@pytest.mark.parametrize("text", RIGHT)
def test_figures_that_agree_with_their_record_pass(checkout: Path, text: str) -> None:
    assert faults(checkout, text) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "It solves 93.3 %.\n<!-- claim: run stages.sft.score -->",
            "93.3 disagrees with record run, which has 93.2",
        ),
        ("It took 6 min 25 s\n<!-- claim: run stages.sft.seconds -->", "6 min 25 disagrees with record run"),
        ("It solves 93.2 %.", "no <!-- claim: RECORD PATH ... --> says where 93.2 comes from"),
        ("0.94 of all <!-- claim: run stages.0.score -->", "0.94 disagrees with record run, which has 0.932"),
        ("0.93 of all", "no <!-- claim: RECORD PATH ... --> says where 0.93 comes from"),
        ("| a | n |\n|---|---|\n| tokens | 20 |", "says where 20 comes from"),
        (
            "three times as fast <!-- claim: run speed.ours.tokens/speed.llama.cpp.tokens -->",
            "three disagrees",
        ),
        ("half as fast <!-- logged: 2026-11-29: one -->", "half does not stand in the log's entry"),
        ("It solves 93.2 %.\n<!-- claim: other a -->", "there is no record"),
        ("It solves 93.2 %.\n<!-- claim: ../run a -->", "'../run' is no name of a record"),
        (
            "It solves 93.2 %.\n<!-- claim: run stages.dpo.score -->",
            "has nothing at stages.dpo.score (no 'dpo')",
        ),
        ("It solves 93.2 %.\n<!-- claim: run stages.sft.name -->", "has no number at stages.sft.name"),
        (
            "93.2 % and 5 s.\n<!-- claim: run stages.sft.score -->",
            "2 figures (93.2, 5), but the claim has 1 paths",
        ),
        ("No figure.\n<!-- claim: run stages.sft.score -->", "0 figures (), but the claim has 1 paths"),
        (
            "```text\nsft    93.3 %\n```\n<!-- shown: run printed -->",
            "the block isn't what record run has at printed",
        ),
        ("```text\nsft    93.3 %\n```", "a command's output with figures has no <!-- shown"),
        ("It took 1.64 s.\n<!-- logged: 2026-11-29: one -->", "1.64 does not stand in the log's entry"),
        ("It took 9 s.\n<!-- logged: 2026-11-29: one -->", "9 does not stand in the log's entry"),
        ("It took 1.63 s.\n<!-- logged: 2026-11-29: on -->", "the log has no entry '2026-11-29: on'"),
        ("At most 30 s.\n<!-- not measured: x -->", "has to say why"),
    ],
)
def test_a_figure_that_is_altered_or_without_a_record_is_found(checkout: Path, text: str, why: str) -> None:
    (found,) = faults(checkout, text)
    assert why in found


def test_a_comment_belongs_to_the_block_before_it_only(checkout: Path) -> None:
    text = f"{RIGHT[0]}\n\nIt is 5 % more.\n\n{RIGHT[2]}"
    assert faults(checkout, text) == ["no <!-- claim: RECORD PATH ... --> says where 5 comes from"]


def test_braces_expand_as_a_shell_does() -> None:
    assert expanded("a.{b,c}.{d,e}") == ["a.b.d", "a.b.e", "a.c.d", "a.c.e"]


def test_a_damaged_record_is_one_line(checkout: Path) -> None:
    (checkout / "docs/records/run.json").write_text("{")
    assert "is not JSON: it was damaged" in faults(checkout, RIGHT[0])[0]


def test_every_figure_of_our_documents_has_its_record() -> None:
    documents = documents_of(ROOT)
    assert {path.name for path in documents} >= {
        "README.md",
        "README.ko.md",
        "README.zh.md",
        "engine.md",
        "REPORT.md",
    }
    found = check_documents(documents, ROOT)
    assert [str(fault) for fault in found.faults] == []
    assert found.figures > 40
    assert found.shown >= 6


@pytest.mark.parametrize("name", ["README.md", "README.ko.md", "README.zh.md", "docs/engine.md"])
def test_any_altered_figure_of_a_document_is_found(name: str, tmp_path: Path) -> None:
    altered = 0
    for block in blocks_of((ROOT / name).read_text(encoding="utf-8")):
        if block.kind == "fence" or block.source is None or block.source[0] == "not measured":
            continue
        counts = Counter(
            figure.text for figure in block.figures if figure.text[-1].isdigit()
        )  # no number words
        for figure, count in counts.items():
            other = f"{figure[:-1]}{(int(figure[-1]) + 1) % 10}"
            seen = 0  # the same digits may stand in a label, where they claim nothing
            for place in re.finditer(rf"(?<![\d.,]){re.escape(figure)}(?!\d)", block.text):
                text = block.text[: place.start()] + other + block.text[place.end() :]
                path = tmp_path / "altered.md"
                path.write_text(f"{text}\n<!-- {block.source[0]}: {block.source[1]} -->", encoding="utf-8")
                seen += bool(check_documents([path], ROOT).faults)
            assert seen >= count, f"{figure} became {other} unseen"
            altered += count
    assert altered >= 5


def test_an_altered_table_of_the_readme_is_found(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for printed in re.findall(r"\d+\.\d%", text):
        (tmp_path / "README.md").write_text(text.replace(printed, "99.9%", 1), encoding="utf-8")
        assert check_documents([tmp_path / "README.md"], ROOT).faults


def test_the_command_names_each_fault_and_fails(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    (checkout / "README.md").write_text(f"{RIGHT[0]}\n\nIt is 5 % more.\n")
    assert main(["claims", "check"]) == 1
    out, error = capsys.readouterr()
    assert out.startswith("README.md:4: no <!-- claim")
    assert "1 block has figures that don't hold" in error
    (checkout / "README.md").write_text(RIGHT[0])
    assert main(["claims", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"] == 1
    assert main(["claims", "check", "none.md"]) == 2
    (checkout / "README.md").write_bytes(b"\xff")
    assert main(["claims", "check"]) == 2
    shutil.rmtree(checkout / "docs")
    (checkout / "README.md").unlink()
    assert main(["claims", "check"]) == 2


def test_a_run_becomes_a_record_only_where_it_verifies(tmp_path: Path) -> None:
    run = sealed_run(tmp_path / "run")
    (run / "timings.jsonl").write_text(
        "".join(
            json.dumps(
                {"kind": "stage", "stage": name, "wall_seconds": 2.0, "cpu_seconds": 3.0, "session": 1}
            )
            + "\n"
            for name in ("pretrain", "sft")
        )
    )
    record = record_run(run, lambda report: f"{len(report['stages'])} stages")
    assert record["printed"] == "2 stages"
    assert record["ledger"]["lines"] == 48
    assert record["cost"]["total"]["wall_seconds"] == 4.0
    (run / "samples.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match="only what verifies can be a record"):
        record_run(run, str)


def test_a_benchmarks_output_becomes_a_record(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    (checkout / "out.json").write_text('{"seconds": 1.5}')
    assert main(["claims", "record", "bench-a", "out.json"]) == 2
    typed = ["--command", "make bench-a", "--date", "2026-11-29"]
    assert main(["claims", "record", "bench-a", "out.json", *typed]) == 0
    record: dict[str, Any] = json.loads((checkout / "docs/records/bench-a.json").read_text())
    assert record == {"of": "benchmark", "command": "make bench-a", "date": "2026-11-29", "seconds": 1.5}
    assert faults(checkout, "1.5 s <!-- claim: bench-a seconds -->") == []
    assert main(["claims", "record", "Bench A", "out.json", *typed]) == 2


def test_what_is_no_output_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("tokens: 5")
    with pytest.raises(InputError, match="is not JSON"):
        record_output(tmp_path / "out", "make bench")
    (tmp_path / "out").write_text("[1]")
    with pytest.raises(InputError, match="holds no JSON object"):
        record_output(tmp_path / "out", "make bench")
    with pytest.raises(InputError, match="there is no docs/ here"):
        write_record("a", {}, tmp_path)
