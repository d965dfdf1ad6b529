"""report.json: the fields, sums over sessions, partial runs, and writing it whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from clearseek.config.errors import InputError, RunError
from clearseek.ledger.append import LineFile
from clearseek.ledger.log import Ledger
from clearseek.ledger.record import load_run
from clearseek.ledger.report import build_report, replace_file, write_report
from clearseek.ledger.timings import Timings
from tests.ledger.synthetic import PLANS, write_run

STAGE_FIELDS = {
    "name", "kind", "wall_seconds", "cpu_seconds", "tokens", "flops", "tokens_per_second", "eval",
}  # fmt: skip
EVAL_FIELDS = {
    "pass_at_1", "ci95", "n", "by_task", "by_language", "language_consistency", "mean_completion_tokens",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "r1-mini")


def test_the_report_has_the_promised_fields(run: Path) -> None:
    report = build_report(run)
    assert {"recipe", "seed", "machine", "stages", "totals", "rl_mismatch_max"} <= set(report)
    assert (report["recipe"], report["seed"], report["rl_mismatch_max"]) == ("r1-mini", 1, 3.1e-6)
    assert [stage["name"] for stage in report["stages"]] == [plan.name for plan in PLANS]
    assert all(set(stage) == STAGE_FIELDS for stage in report["stages"])
    evaluated = {stage["name"]: stage["eval"] for stage in report["stages"] if stage["eval"]}
    assert set(evaluated) == {plan.name for plan in PLANS if plan.skill[1]}
    assert all(set(evaluation) == EVAL_FIELDS for evaluation in evaluated.values())
    assert evaluated["rl-all"]["pass_at_1"] == 0.88
    totals = report["totals"]
    assert set(totals) == {"wall_seconds", "cpu_seconds", "flops", "peak_memory_bytes", "cost"}
    assert report["machine"]["processor"] == "Two-core test machine"
    assert report["machine"]["dtype"] == "bfloat16"
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_totals_are_the_sums_of_the_stages_and_of_getting_started(run: Path) -> None:
    report = build_report(run)
    stages, totals = report["stages"], report["totals"]
    assert totals["flops"] == pytest.approx(sum(stage["flops"] for stage in stages))
    assert totals["cpu_seconds"] == pytest.approx(sum(s["cpu_seconds"] for s in stages) + 2.5 * 1.93)
    assert totals["wall_seconds"] >= sum(stage["wall_seconds"] for stage in stages)
    assert totals["peak_memory_bytes"] == 1_310_000_000
    pretrain = stages[1]
    assert pretrain["tokens_per_second"] == pytest.approx(pretrain["tokens"] / pretrain["wall_seconds"])
    assert (pretrain["wall_seconds"], pretrain["tokens"]) == (214.0, 300 * 8192)


def test_cost_follows_from_the_stated_price_and_power(run: Path) -> None:
    cost = build_report(run, usd_per_cpu_hour=2.0, watts_per_core=50.0)["totals"]["cost"]
    hours = build_report(run)["totals"]["cpu_seconds"] / 3600
    assert cost == pytest.approx(
        {
            "cpu_hours": hours,
            "usd": hours * 2,
            "kwh": hours * 0.05,
            "usd_per_cpu_hour": 2.0,
            "watts_per_core": 50,
        }
    )


def test_time_between_sessions_is_not_counted(run: Path, tmp_path: Path) -> None:
    resumed = build_report(write_run(tmp_path / "again", sessions=3))
    once = build_report(run)
    assert resumed["sessions"] == 3
    assert resumed["totals"]["wall_seconds"] == pytest.approx(once["totals"]["wall_seconds"] + 2 * 2.5)


def two_sessions(directory: Path) -> None:
    """A stage of four steps, killed after the third, resumed from the second."""
    with Ledger(directory / "ledger.jsonl") as ledger:
        ledger.append("run", recipe="x", seed=1)
        ledger.append("stage_started", "sft", kind_of_stage="sft", config={}, parents=[], parameters=None)
        for step in (1, 2, 3, 4):
            ledger.append("step", "sft", step=step, loss=1.0, tokens=10)
    clock = LineFile(directory / "timings.jsonl")
    lines = [
        {"kind": "session", "time": 100.0, "session": 1, "wall_seconds": 3.0, "cpu_seconds": 2.0},
        {"kind": "stage_started", "stage": "sft", "time": 101.0, "session": 1},
        *({"kind": "step", "stage": "sft", "step": step, "time": 101.0 + 2 * step, "session": 1, "flops": 5.0,
           "wall_seconds": 2.0, "cpu_seconds": 4.0, "peak_memory_bytes": 10 * step} for step in (1, 2, 3)),
        {"kind": "session", "time": 500.0, "session": 2, "wall_seconds": 3.0, "cpu_seconds": 2.0},
        {"kind": "stage_started", "stage": "sft", "time": 500.0, "session": 2},
        *({"kind": "step", "stage": "sft", "step": step, "time": 496.0 + 2 * step, "session": 2, "flops": 5.0,
           "wall_seconds": 2.0, "cpu_seconds": 4.0} for step in (3, 4)),
        {"kind": "stage", "stage": "sft", "time": 504.5, "session": 2, "wall_seconds": 4.5,
         "cpu_seconds": 9.0},
    ]  # fmt: skip
    for line in lines:
        clock.write((json.dumps(line) + "\n").encode())
    clock.close()


def test_work_repeated_after_a_kill_counts_as_time_but_not_as_tokens(tmp_path: Path) -> None:
    two_sessions(tmp_path)
    report = build_report(tmp_path)
    (stage,) = report["stages"]
    assert stage["wall_seconds"] == 6.0 + 4.5
    assert stage["cpu_seconds"] == 12.0 + 9.0
    assert (stage["tokens"], stage["flops"]) == (40, 20.0)
    assert report["totals"]["wall_seconds"] == (3.0 + 7.0) + (3.0 + 4.5)
    assert report["totals"]["cpu_seconds"] == 4.0 + 21.0
    assert report["totals"]["peak_memory_bytes"] == 30
    assert report["state"] == "stopped"


@pytest.mark.parametrize("until", [0, 1, 2, 3, 40, 305, 306, 390, 460, 700])
def test_a_partial_run_has_a_report(tmp_path: Path, until: int) -> None:
    run = write_run(tmp_path / "run", until=until)
    report = write_report(run)
    assert report["state"] == ("stopped" if until else "empty")
    assert report["recipe"] == ("r1-mini" if until else "run")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "</html>" in page
    assert "88" in page or until < 700


def test_a_run_that_goes_on_is_seen_as_running(run: Path, tmp_path: Path) -> None:
    partial = write_run(tmp_path / "run", until=100)
    with Ledger(partial / "ledger.jsonl"), Timings(partial / "timings.jsonl"):
        assert build_report(partial)["state"] == "running"
    assert build_report(partial)["state"] == "stopped"
    with Ledger(run / "ledger.jsonl"):
        assert build_report(run)["state"] == "finished"


def test_a_stage_begun_anew_in_a_fork_replaces_its_earlier_self(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", until=40)
    with Ledger(run / "ledger.jsonl") as ledger:
        ledger.append("run", recipe="r1-mini", recipe_sha256="f" * 64, seed=1)
        ledger.append("stage_started", "pretrain", kind_of_stage="pretrain", config={}, parents=[])
        ledger.append("step", "pretrain", step=1, loss=5.0, tokens=7)
    record = load_run(run)
    assert record.run["recipe_sha256"] == "f" * 64
    assert [stage.name for stage in record.stages] == ["tokenizer", "pretrain"]
    assert record.stages[1].tokens == 7


def test_a_changed_ledger_is_told_and_still_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"pass_at_1":"0x1', b'"pass_at_1":"0x0'))
    report = write_report(run)
    assert report["ledger"]["intact"] is False
    assert "does not follow" in report["ledger"]["problem"]
    assert len(report["stages"]) == len(PLANS)
    assert "BROKEN" in (run / "report.html").read_text(encoding="utf-8")


def test_mismatch_that_is_not_a_number_is_not_hidden(tmp_path: Path) -> None:
    def spoil(kind: str, stage: str, fields: dict[str, Any]) -> dict[str, Any]:
        return fields | {"mismatch": float("nan")} if kind == "step" and stage == "rl-all" else fields

    assert build_report(write_run(tmp_path / "run", change=spoil))["rl_mismatch_max"] == "nan"


def test_the_result_is_the_named_stage_else_the_best(tmp_path: Path) -> None:
    def unnamed(kind: str, stage: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in fields.items() if key != "result"}

    def student(kind: str, stage: str, fields: dict[str, Any]) -> dict[str, Any]:
        return fields | {"result": "student"} if kind == "run" else fields

    assert build_report(write_run(tmp_path / "a", change=unnamed))["result"] == "rl-all"
    assert build_report(write_run(tmp_path / "b", change=student))["result"] == "student"


def test_what_is_no_run_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no ledger.jsonl"):
        build_report(tmp_path)


def test_the_report_is_written_whole_or_not_at_all(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="No space left"):
        replace_file(run / "report.json", b"{}")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_writing_it_twice_gives_the_same_bytes(run: Path) -> None:
    write_report(run)
    before = (run / "report.html").read_bytes(), (run / "report.json").read_bytes()
    write_report(run)
    assert before == ((run / "report.html").read_bytes(), (run / "report.json").read_bytes())
