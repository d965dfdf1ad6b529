"""The doctor: silent about a healthy run; for each symptom one finding with its number and a recipe key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clearseek.config.errors import InputError
from clearseek.ledger.doctor import diagnose
from clearseek.ledger.finding import Finding
from clearseek.ledger.log import Ledger
from tests.ledger.synthetic import write_run

Fields = dict[str, Any]


def on(kind: str, stage: str, change: Callable[[Fields], Fields]) -> Callable[[str, str, Fields], Fields]:
    """A change to the records of one kind in one stage."""
    return lambda k, s, fields: fields | change(fields) if (k, s) == (kind, stage) else fields


def rl(change: Callable[[Fields], Fields]) -> Callable[[str, str, Fields], Fields]:
    return on("step", "rl-reasoning", change)


def unreadable(share: float) -> Callable[[Fields], Fields]:
    bad = round(256 * share)
    return lambda f: {"unparseable": bad, "correct": 256 - bad, "wrong": 0, "truncated": 0}


def test_a_healthy_run_has_no_findings(tmp_path: Path) -> None:
    assert diagnose(write_run(tmp_path / "run")) == []


SYMPTOMS = {
    "all wrong": (
        rl(lambda f: {"groups_all_wrong": 24}),
        "warning", "most groups are all wrong", "240 of 320 groups",
        ["problems.levels", "group_size (now 8)"],
    ),
    "all correct": (
        rl(lambda f: {"groups_all_correct": 30}),
        "note", "most groups are all correct", "300 of 320 groups", ["retire_pass_rate", "problems.levels"],
    ),
    "truncated": (
        rl(lambda f: {"truncated": 64}),
        "warning", "cut short", "25% of 2560 completions", ["rl-reasoning.max_completion_tokens"],
    ),
    "format never": (
        rl(unreadable(1.0)),
        "error", "format is never hit", "100% of 2560", ["sft", "verifier"],
    ),
    "format often not": (
        rl(unreadable(0.4)),
        "warning", "format is often not hit", "40% of 2560", ["sft", "verifier"],
    ),
    "entropy": (
        rl(lambda f: {"entropy": 0.0004}),
        "warning", "entropy is gone", "0.0004 nats", ["optimizer.learning_rate (now 0.0002)", "temperature"],
    ),
    "rate": (
        rl(lambda f: {"learning_rate": 1e-8, "reward": 0.41 + 0.01 * (f["step"] % 3)}),
        "warning", "reward is flat, and the learning rate is very small", "learning rate at most 1e-08",
        ["raise stages.rl-reasoning.optimizer.learning_rate", "tenfold"],
    ),
    "flat": (
        rl(lambda f: {"reward": 0.41 + 0.01 * (f["step"] % 3)}),
        "warning", "reward is flat", "mean reward 0.420 in the first 10 steps", ["steps", "learning_rate"],
    ),
    "falling": (
        rl(lambda f: {"reward": 0.8 - 0.015 * f["step"]}),
        "error", "reward falls", "mean reward 0.718",
        ["lower stages.rl-reasoning.optimizer.learning_rate", "kl_weight"],
    ),
    "zero gradient": (
        rl(lambda f: {"grad_norm": 0.0}),
        "error", "gradient is zero", "grad_norm at most 0", ["max_completion_tokens"],
    ),
    "mismatch": (
        rl(lambda f: {"mismatch": 0.9} if f["step"] == 1 else {}),
        "error", "sampler and trainer disagree", "0.9 at step 1, the bound is 0.5", ["dtype", "max_mismatch"],
    ),
    "mismatch nan": (
        rl(lambda f: {"mismatch": float("nan")} if f["step"] == 1 else {}),
        "error", "sampler and trainer disagree", "nan at step 1", ["max_mismatch"],
    ),
    "verifier": (
        rl(lambda f: {"error": 2}),
        "warning", "verifier fails", "80 of 10320 completions (0.8%)", ["verifier"],
    ),
    "language": (
        rl(lambda f: {"language_consistency": 0.8}),
        "warning", "mix languages", "80.0% of the words", ["language_consistency_weight"],
    ),
    "nan loss": (
        on("step", "pretrain", lambda f: {"loss": float("nan")} if f["step"] > 200 else {}),
        "error", "loss is not a number", "100 steps, the first is step 201",
        ["optimizer.learning_rate", "dtype"],
    ),
    "inf gradient": (
        rl(lambda f: {"grad_norm": float("inf")} if f["step"] == 7 else {}),
        "error", "grad_norm is not a number", "1 steps, the first is step 7", ["gradient_clip"],
    ),
    "flat loss": (
        on("step", "pretrain", lambda f: {"loss": 6.2 + 0.01 * (f["step"] % 2), "learning_rate": 1e-9}),
        "warning", "pretrain: the loss does not fall", "mean loss 6.205", ["raise stages.pretrain.optimizer"],
    ),
    "rising loss": (
        on("step", "sft", lambda f: {"loss": 0.5 + 0.01 * f["step"]}),
        "warning", "sft: the loss does not fall", "mean loss 0.55", ["lower stages.sft.optimizer"],
    ),
    "experts": (
        on("step", "pretrain", lambda f: {"expert_load_max": 3.7}),
        "warning", "a few experts", "3.70 times the mean load", ["bias_update_rate", "balance_loss_weight"],
    ),
    "overlap": (
        on("data", "cold-start", lambda f: {"train_held_out_overlap": 3}),
        "error", "examination are in the training data", "3 held-out problems", ["stages.cold-start.data"],
    ),
    "eval errors": (
        on("eval", "student", lambda f: {"errors": 5}),
        "warning", "checker failed", "5 errors in 400 problems", ["verifier"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SYMPTOMS)
def test_each_symptom_is_found_alone_with_its_number_and_the_key_to_change(tmp_path: Path, name: str) -> None:
    change, severity, what, evidence, advised = SYMPTOMS[name]
    findings = diagnose(write_run(tmp_path / "run", change=change))
    assert len(findings) == 1, findings
    finding = findings[0]
    assert finding.severity == severity
    assert what in finding.what
    assert evidence in finding.evidence
    for key in advised:
        assert key in finding.advice


def test_a_killed_run_is_told_and_a_running_one_is_not_blamed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", until=385)
    (finding,) = diagnose(run)
    assert finding.what == "the run was killed or failed before its end"
    assert "cold-start at step 7" in finding.evidence
    assert "same command" in finding.advice
    with Ledger(run / "ledger.jsonl"):
        assert diagnose(run) == []


def test_a_changed_ledger_is_the_first_thing_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", change=SYMPTOMS["truncated"][0])
    path = run / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"pass_at_1":"0x1', b'"pass_at_1":"0x0'))
    assert [finding.severity for finding in diagnose(run)] == ["error", "warning"]
    assert "changed after it was written" in diagnose(run)[0].what


def test_a_run_with_hardly_any_steps_is_not_judged(tmp_path: Path) -> None:
    def bad(kind: str, stage: str, fields: Fields) -> Fields | None:
        return None if kind == "step" and fields["step"] > 4 else fields

    findings = diagnose(write_run(tmp_path / "run", change=bad))
    assert {finding.severity for finding in findings} == {"note"}
    assert {finding.what.partition(": ")[2] for finding in findings} == {"too few steps to judge"}
    assert "4 steps, where 5 are needed; the last one's reward is 0." in findings[0].evidence


def test_findings_print_and_serialise() -> None:
    finding = Finding("note", "a", "b", "c")
    assert str(finding) == "note: a\n  seen: b\n  try:  c"
    assert finding.to_dict() == {"severity": "note", "what": "a", "evidence": "b", "advice": "c"}


def test_what_is_no_run_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        diagnose(tmp_path)
