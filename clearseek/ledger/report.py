"""report.json and report.html of a run, made again at any time from its records alone."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from clearseek.config.errors import RunError
from clearseek.ledger.lines import plain
from clearseek.ledger.record import RunRecord, StageRecord, load_run, values

# Rough, and stated beside every figure that uses them: a rented virtual core, a busy core at the wall plug.
USD_PER_CPU_HOUR = 0.05
WATTS_PER_CORE = 10.0

_EVAL_FIELDS = (
    "pass_at_1",
    "ci95",
    "n",
    "by_task",
    "by_language",
    "language_consistency",
    "mean_completion_tokens",
)


def build_report(
    run_dir: str | os.PathLike[str],
    usd_per_cpu_hour: float = USD_PER_CPU_HOUR,
    watts_per_core: float = WATTS_PER_CORE,
) -> dict[str, Any]:
    """The run in numbers, as report.json holds it. Raises InputError when `run_dir` is not a run.

    A field is null when it was not recorded (yet): a stage's `eval`, `rl_mismatch_max` without RL.
    """
    return report_of(load_run(run_dir), usd_per_cpu_hour, watts_per_core)


def report_of(
    record: RunRecord, usd_per_cpu_hour: float = USD_PER_CPU_HOUR, watts_per_core: float = WATTS_PER_CORE
) -> dict[str, Any]:
    """The same from a run already read."""
    steps = [step for stage in record.stages for step in stage.steps]
    result = record.result
    report = {
        "recipe": record.name,
        "seed": record.run.get("seed"),
        "machine": record.machine,
        "state": record.state,
        "result": result.name if result else None,
        "versions": record.run.get("versions"),
        "recipe_sha256": record.run.get("recipe_sha256"),
        "ledger": _ledger(record),
        "sessions": record.sessions,
        "stages": [_stage(stage) for stage in record.stages],
        "totals": {
            "wall_seconds": record.wall_seconds,
            "cpu_seconds": record.cpu_seconds,
            "flops": sum(stage.flops for stage in record.stages),
            "peak_memory_bytes": record.peak_memory_bytes,
            "cost": cost(record.cpu_seconds, usd_per_cpu_hour, watts_per_core),
        },
        "rl_mismatch_max": _largest(list(values(steps, "mismatch"))),
    }
    return {key: plain(value, key) for key, value in report.items()}


def cost(cpu_seconds: float, usd_per_cpu_hour: float, watts_per_core: float) -> dict[str, float]:
    """Money and energy of so much processor time, with the two assumptions they rest on."""
    cpu_hours = cpu_seconds / 3600
    return {
        "cpu_hours": cpu_hours,
        "usd": cpu_hours * usd_per_cpu_hour,
        "kwh": cpu_hours * watts_per_core / 1000,
        "usd_per_cpu_hour": usd_per_cpu_hour,
        "watts_per_core": watts_per_core,
    }


def write_report(
    run_dir: str | os.PathLike[str],
    usd_per_cpu_hour: float = USD_PER_CPU_HOUR,
    watts_per_core: float = WATTS_PER_CORE,
) -> dict[str, Any]:
    """Writes report.json and report.html into the run, each whole or not at all, and returns the report."""
    from clearseek.ledger.page import render_page

    record = load_run(run_dir)
    report = report_of(record, usd_per_cpu_hour, watts_per_core)
    text = json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    replace_file(record.directory / "report.json", text.encode(errors="backslashreplace"))
    page = render_page(record, report)
    replace_file(record.directory / "report.html", page.encode(errors="xmlcharrefreplace"))
    return report


def replace_file(path: Path, content: bytes) -> None:
    """Puts `content` in place of a file in one move. Raises RunError, with the old file untouched."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        reason = error.strerror or error
        raise RunError(f"{path}: could not be written ({reason}); the run's records are untouched") from error


def _stage(stage: StageRecord) -> dict[str, Any]:
    wall = stage.wall_seconds
    evaluation = stage.eval
    return {
        "name": stage.name,
        "kind": stage.kind,
        "wall_seconds": wall,
        "cpu_seconds": stage.cpu_seconds,
        "tokens": stage.tokens,
        "flops": stage.flops,
        "tokens_per_second": stage.tokens / wall if wall > 0 else None,
        "eval": {key: evaluation.get(key) for key in _EVAL_FIELDS} if evaluation else None,
    }


def _ledger(record: RunRecord) -> dict[str, Any]:
    return {
        "intact": record.chain is not None,
        "lines": record.chain.num_lines if record.chain else None,
        "head_sha256": record.chain.sha256 if record.chain else None,
        "problem": record.problem,
    }


def _largest(numbers: list[float]) -> float | None:
    """The maximum, with NaN as the largest of all: a mismatch that is not a number must not hide."""
    return max(numbers, key=lambda value: (value != value, value), default=None)
