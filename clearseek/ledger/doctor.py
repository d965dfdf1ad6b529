"""Reads a run's records and says why it doesn't learn, or what else is the matter, with what to change.

It looks at ledger.jsonl and timings.jsonl only, so it works on a run that is going on, was killed, or was
copied from elsewhere. A healthy run has no findings.
"""

import os

from clearseek.ledger.finding import Finding
from clearseek.ledger.lines import number
from clearseek.ledger.record import RunRecord, StageRecord, load_run
from clearseek.ledger.symptoms_rl import rl_symptoms
from clearseek.ledger.symptoms_training import training_symptoms

_ORDER = {"error": 0, "warning": 1, "note": 2}


def diagnose(run_dir: str | os.PathLike[str]) -> list[Finding]:
    """What ails a run, the worst first. Raises InputError when `run_dir` is not a run."""
    return diagnose_record(load_run(run_dir))


def diagnose_record(record: RunRecord) -> list[Finding]:
    """The same from a run already read."""
    findings = [*_chain(record), *_unfinished(record)]
    for stage in record.stages:
        findings += [*_overlap(stage), *_eval_errors(stage)]
        findings += rl_symptoms(stage) if stage.kind == "rl" else training_symptoms(stage)
    return sorted(findings, key=lambda finding: _ORDER[finding.severity])


def _chain(record: RunRecord) -> list[Finding]:
    if record.problem is None:
        return []
    return [
        Finding(
            "error",
            "the ledger was changed after it was written",
            record.problem,
            "restore ledger.jsonl from a copy; until then none of this run's numbers can be trusted",
        )
    ]


def _unfinished(record: RunRecord) -> list[Finding]:
    if record.state != "stopped":
        return []
    if not record.stages:
        where = "no stage had begun"
    else:
        stage = record.stages[-1]
        step = f" at step {stage.steps[-1].get('step')}" if stage.steps and not stage.finished else ""
        where = f"the last stage is {stage.name}{step}, {'finished' if stage.finished else 'not finished'}"
    advice = "run the same command again: it continues from the last resume point to the same bytes"
    return [Finding("warning", "the run was killed or failed before its end", where, advice)]


def _overlap(stage: StageRecord) -> list[Finding]:
    return [
        Finding(
            "error",
            f"{stage.name}: problems of the examination are in the training data",
            f"{overlap:.0f} held-out problems found in {data.get('source')}",
            f"take them out of stages.{stage.name}.data, or give another problems.held_out_path; "
            "the scores of this run say nothing",
        )
        for data in stage.data
        if (overlap := number(data.get("train_held_out_overlap")) or 0) > 0
    ]


def _eval_errors(stage: StageRecord) -> list[Finding]:
    errors = number((stage.eval or {}).get("errors")) or 0
    if not errors:
        return []
    asked = number((stage.eval or {}).get("n")) or 0
    return [
        Finding(
            "warning",
            f"{stage.name}: the checker failed on answers of the examination",
            f"{errors:.0f} errors in {asked:.0f} problems; they are left out of the score",
            "check the problems' `verifier` with `clearseek verify`; your own function must return in time",
        )
    ]
