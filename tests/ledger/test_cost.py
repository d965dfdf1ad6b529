"""What a run has cost: sums against the clock, prices, the signature, and what can't be told."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from clearseek.cli.main import main
from clearseek.config.errors import InputError, RunError
from clearseek.ledger.cost import NOTE, cost_of, led_to, write_cost
from clearseek.ledger.note import read_statement, signed_statement
from clearseek.ledger.record import load_run
from clearseek.ledger.seal import seal
from clearseek.ledger.tariff import Tariff
from tests.ledger.synthetic import write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run, sealed, its cost signed."""
    directory = write_run(tmp_path / "run")
    seal(directory, (directory / "ledger.jsonl").read_bytes().splitlines(keepends=True))
    write_cost(directory)
    return directory


def stage_lines(run: Path) -> dict[str, dict[str, Any]]:
    """The clock's own line of every stage."""
    lines = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    return {line["stage"]: line for line in lines if line["kind"] == "stage"}


def test_stages_cost_what_the_clock_says(run: Path) -> None:
    cost = cost_of(run)
    for stage in cost["stages"]:
        line = stage_lines(run)[stage["name"]]
        assert stage["wall_seconds"] == line["wall_seconds"]
        assert stage["kwh"] == pytest.approx(line["cpu_seconds"] * 10 / 3.6e6)
        assert stage["money"] == pytest.approx(line["cpu_seconds"] / 3600 * 0.05)
        assert stage["gpu_seconds"] == 0
    for name in ("wall_seconds", "cpu_seconds", "flops", "tokens"):
        assert cost["total"][name] == pytest.approx(sum(stage[name] for stage in cost["stages"]))
    assert cost["total"]["kwh_method"] == "estimated at 10 W a busy core"
    assert cost["signed"]


def test_a_point_costs_the_stage_divided_by_what_it_gained(run: Path) -> None:
    stages = {stage["name"]: stage for stage in cost_of(run)["stages"]}
    before, after = (load_run(run).stage(name).eval["pass_at_1"] for name in ("pretrain", "cold-start"))
    assert stages["cold-start"]["gained"] == pytest.approx(after - before)
    assert stages["cold-start"]["per_point"]["cpu_seconds"] == pytest.approx(
        stages["cold-start"]["cpu_seconds"] / ((after - before) * 100)
    )
    assert stages["tokenizer"]["per_point"] is None
    assert stages["final"]["accuracy"]
    assert stages["final"]["gained"] is None  # it examines a model that another stage taught


def test_the_result_carries_what_led_to_it_and_no_more(run: Path) -> None:
    record = load_run(run)
    assert led_to(record, "rl-all") == {
        "tokenizer", "pretrain", "cold-start", "rl-reasoning", "rejection", "sft", "rl-all",
    }  # fmt: skip
    result = cost_of(run)["result"]
    lines = stage_lines(run)
    assert result["cpu_seconds"] == pytest.approx(
        sum(lines[name]["cpu_seconds"] for name in result["stages"])
    )
    assert "student" not in result["stages"]


def test_answers_that_a_stage_read_led_to_it(tmp_path: Path) -> None:
    def read_answers(kind: str, stage: str, fields: dict[str, Any]) -> dict[str, Any]:
        if (kind, stage) == ("stage_started", "student"):
            return fields | {"parents": [], "config": {"data": [{"stage": "rejection"}, {"problems": {}}]}}
        return fields

    record = load_run(write_run(tmp_path / "run", change=read_answers))
    assert led_to(record, "student") == {
        "student", "rejection", "rl-reasoning", "cold-start", "pretrain", "tokenizer",
    }  # fmt: skip


def test_a_stated_tariff_prices_what_it_states_only(run: Path) -> None:
    electricity = cost_of(run, Tariff.read("kwh=0.2,currency=EUR,core_watts=20"))
    assert electricity["total"]["money"] == pytest.approx(electricity["total"]["kwh"] * 0.2)
    assert (
        electricity["tariff"] | {"currency": "EUR", "cpu_hour": 0, "assumed": False} == electricity["tariff"]
    )
    assert electricity["beside_deepseek"]["ratio"]["money"] is None
    assert cost_of(run)["tariff"]["assumed"]


def test_a_tariff_may_be_a_file(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('cpu_hour = 1\ncurrency = "KRW"\n')
    total = cost_of(run, Tariff.read(str(path)))["total"]
    assert total["money"] == pytest.approx(total["cpu_seconds"] / 3600)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpu_hours=1", "unknown key 'cpu_hours'; known keys: core_watts, cpu_hour"),
        ("cpu_hour=cheap", "cpu_hour is 'cheap'; it must be a number of at least 0"),
        ("kwh=-1", "kwh is -1.0; it must be a number"),
        ("kwh=nan", "kwh is nan; it must be a number"),
        ("0.05", "'0.05' is no price; write cpu_hour=0.05"),
        ("currency=", "currency is ''"),
        ("missing.toml", "missing.toml cannot be read (No such file"),
    ],
)
def test_a_wrong_tariff_is_one_line(
    run: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost", str(run), "--tariff", text]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_accelerators_and_measured_energy_are_counted(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run", change=lambda kind, _, fields: fields | {"device": "cuda:0", "processes": 2}
    )
    text = (run / "timings.jsonl").read_text().splitlines()
    lines = [json.loads(line) | {"cpu_joules": 3.6, "gpu_joules": 36.0} for line in text]
    (run / "timings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = cost_of(run)["stages"][1]
    count = sum(line.get("stage") == "pretrain" for line in lines)
    assert stage["gpu_seconds"] == 2 * stage["wall_seconds"]
    assert stage["kwh"] == pytest.approx(count * (3.6 + 2 * 36.0) / 3.6e6)
    assert stage["kwh_method"] == "measured by RAPL, all that ran there; measured by NVML, all that ran there"


def test_r1_beside_a_run_is_their_figures_divided_by_ours(run: Path) -> None:
    cost = cost_of(run)
    ratio = cost["beside_deepseek"]["ratio"]
    assert ratio["money"] * cost["total"]["money"] == pytest.approx(5_576_000 + 294_000)
    assert ratio["flops"] * cost["total"]["flops"] == pytest.approx(3.2856e24)
    assert len(cost["beside_deepseek"]["assumptions"]) == 4


def test_a_signed_cost_is_told_without_the_clock(run: Path) -> None:
    before = cost_of(run)
    (run / "timings.jsonl").unlink()
    after = cost_of(run)
    assert after["stages"] == before["stages"]
    assert after["result"] == before["result"]


def test_a_note_of_a_longer_run_is_not_believed(run: Path) -> None:
    (run / "timings.jsonl").unlink()
    lines = (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if b'"stage":"final"' in line)
    (run / "ledger.jsonl").write_bytes(b"".join(lines[:cut]))
    with pytest.raises(RunError, match="was signed for other stages than the ledger has"):
        cost_of(run)


def test_a_clock_that_was_set_back_afterwards_is_found(run: Path) -> None:
    path = run / "timings.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    line = next(line for line in lines if line["kind"] == "stage" and line["stage"] == "sft")
    line["cpu_seconds"] /= 2
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(
        RunError, match=r"timings.jsonl doesn't say what cost.note was signed for \(stage sft\)"
    ):
        cost_of(run)


def test_an_altered_or_foreign_statement_is_found(run: Path, tmp_path: Path) -> None:
    text = (run / NOTE).read_text()
    assert '"wall_seconds":"0x1.' in text  # as in the ledger, no bit lost
    (run / NOTE).write_text(text.replace('"sessions":1', '"sessions":2'))
    with pytest.raises(RunError, match=r"signature of clearseek/.* is wrong"):
        cost_of(run)
    name = text.splitlines()[0].removesuffix("/cost")
    other, key = signed_statement(name, "release", {"a": 1})
    (run / NOTE).write_text(other)
    with pytest.raises(RunError, match=r"states clearseek/\w+/release, not"):
        cost_of(run)
    assert read_statement(run / NOTE, "release", key) == {"a": 1}
    (run / NOTE).write_text("no note")
    with pytest.raises(RunError, match=r"cost\.note"):
        cost_of(run)


def test_another_key_has_not_signed_it(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(tmp_path / "other.key"))
    name = (run / NOTE).read_text().splitlines()[0].removesuffix("/cost")
    _, key = signed_statement(name, "cost", {})
    with pytest.raises(RunError, match="is not signed by"):
        cost_of(run, key=key)


def test_a_signed_cost_stays_as_it_is(run: Path) -> None:
    before = (run / NOTE).read_bytes()
    with (run / "timings.jsonl").open("a") as file:
        file.write('{"kind":"session","session":2,"wall_seconds":1.0,"cpu_seconds":1.0,"time":1}\n')
    write_cost(run)
    assert (run / NOTE).read_bytes() == before
    cost_of(run)


def test_a_run_copied_without_its_clock_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / NOTE).unlink()
    (run / "timings.jsonl").unlink()
    with pytest.raises(
        InputError, match=r"stage tokenizer has no time in timings.jsonl, as when a run was copied"
    ):
        cost_of(run)
    write_cost(run)
    assert not (run / NOTE).exists()


def test_a_run_without_a_stage_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no stage yet whose cost could be told"):
        cost_of(write_run(tmp_path / "run", until=1))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_is_one_line(run: Path) -> None:
    (run / NOTE).unlink()
    run.chmod(0o500)
    try:
        with pytest.raises(RunError, match="signed cost could not be written"):
            write_cost(run)
    finally:
        run.chmod(0o700)


def test_the_command_prints_it(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARSEEK_TARIFF", "cpu_hour=1")
    assert main(["cost", str(run)]) == 0
    out = capsys.readouterr().out
    assert "cpu_hour 1, gpu_hour 0, kwh 0 (as stated)" in out
    assert "as the run's key signed it" in out
    assert main(["cost", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tariff"]["assumed"] is False
    shutil.rmtree(run)
    assert main(["cost", str(run)]) == 2
