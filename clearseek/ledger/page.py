"""report.html: one file that explains a run to somebody who has never trained a model.

What is shown is decided here and in `curves`; how it looks is in page.html.jinja, page.css and page.js, which
are all written into the one file. Everything that a model or a user wrote is escaped by the template.
"""

import base64
import hashlib
from importlib import resources
from typing import Any

from clearseek.ledger import phrases
from clearseek.ledger.answers import Problem, gather
from clearseek.ledger.curves import all_curves
from clearseek.ledger.data_page import data_section
from clearseek.ledger.doctor import diagnose_record
from clearseek.ledger.lines import number
from clearseek.ledger.record import Record, RunRecord, StageRecord, table

VERDICTS = {
    "correct": ("✓", "right"),
    "wrong": ("✗", "wrong"),
    "unparseable": ("?", "no readable answer"),
    "error": ("!", "checker failed"),
}
_KIND_COLORS = {"pretrain": 1, "rl": 2, "sft": 3, "distill": 4, "reject": 5}


def render_page(record: RunRecord, report: dict[str, Any]) -> str:
    """The whole page for a run and its report (`report.report_of`)."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "duration": phrases.duration,
        "count": phrases.count,
        "power": phrases.power,
        "percent": phrases.percent,
        "money": phrases.money,
        "energy": phrases.energy,
        "memory": phrases.memory,
        "title": title,
    }
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(_part("page.html.jinja")).render(
        style=_part("page.css"),
        script=script,
        script_sha256=digest,
        verdicts=VERDICTS,
        **view(record, report),
    )


def view(record: RunRecord, report: dict[str, Any]) -> dict[str, Any]:
    """Everything the template shows."""
    totals = report["totals"]
    problems = gather(record.samples)
    return {
        "record": record,
        "report": report,
        "headline": phrases.headline(record, totals["wall_seconds"], totals["cost"]["usd"]),
        "standing": _standing(record),
        "tiles": _tiles(record, totals),
        "stages": [
            _stage_row(record, stage, row)
            | {"usd": row["cpu_seconds"] / 3600 * totals["cost"]["usd_per_cpu_hour"]}
            for stage, row in zip(record.stages, report["stages"], strict=True)
        ],
        "curves": all_curves(record),
        "problems": problems,
        "answer_stages": _answer_stages(record, problems),
        "scores": _score_table(record),
        "crosses": [cross for stage in record.stages if (cross := _cross(stage))],
        "findings": diagnose_record(record),
        "facts": _facts(record, report),
        "data": _data_rows(record),
        "data_section": data_section(record),
        "accelerated": phrases.accelerated(record.machine),
    }


def title(name: str) -> str:
    """A task's or language's name as a reader would write it."""
    return {"en": "English", "ko": "Korean", "zh": "Chinese"}.get(name, name.replace("_", " "))


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _standing(record: RunRecord) -> str | None:
    """What to say first about a run that isn't finished."""
    if record.state == "finished":
        return None
    if not record.stages:
        return "No stage has begun. What follows fills up as the run goes on."
    stage = record.stages[-1]
    steps = f", step {stage.steps[-1].get('step')}" if stage.steps else ""
    if record.state == "running":
        return f"The run is going on: stage “{stage.name}”{steps}. What follows is what it has so far."
    return (
        f"The run stopped before its end, in stage “{stage.name}”{steps}. What follows is what it had by "
        "then; the same command continues it, and nothing is lost."
    )


def _tiles(record: RunRecord, totals: Record) -> list[tuple[str, str, str]]:
    """(figure, what it is, a remark) for the strip under the headline."""
    tiles = []
    stage = record.result
    if stage is not None and stage.eval is not None:
        low, high = interval(stage.eval)
        sure = f"95 % interval: {phrases.percent(low)} to {phrases.percent(high)}" if low is not None else ""
        tiles.append((phrases.percent(number(stage.eval.get("pass_at_1"))), "unseen problems solved", sure))
    size = phrases.parameters(record, stage or (record.stages[-1] if record.stages else None))
    if size:
        active = (
            f"{phrases.count(size[1])} used for each piece of text"
            if size[1] < size[0]
            else "all used at once"
        )
        tiles.append((phrases.count(size[0]), "parameters", active))
    sessions = (
        f"in {record.sessions} sittings" if record.sessions > 1 else f"on {phrases.cores(record.machine)}"
    )
    told = "from start to end" if record.state == "finished" else "so far"
    tiles.append((phrases.duration(totals["wall_seconds"]), told, sessions))
    if not phrases.accelerated(record.machine):
        cost = totals["cost"]
        tiles.append(
            (phrases.money(cost["usd"]), "of computing", f"and {phrases.energy(cost['kwh'])} of electricity")
        )
    tiles.append((phrases.memory(totals["peak_memory_bytes"]), "memory at most", ""))
    return tiles


def _stage_row(record: RunRecord, stage: StageRecord, row: Record) -> Record:
    evaluation = stage.eval or {}
    score = number(evaluation.get("pass_at_1"))
    low, high = interval(evaluation)
    short, long = phrases.KINDS.get(stage.kind, (stage.kind, ""))
    size = phrases.parameters(record, stage) if stage.kind not in ("tokenizer", "eval") else None
    return row | {
        "short": short,
        "long": long,
        "score": score,
        "low": low,
        "high": high,
        "size": size,
        "finished": stage.finished is not None,
        "is_result": record.result is stage,
        "color": _KIND_COLORS.get(stage.kind, 6),
        "completion_tokens": number(evaluation.get("mean_completion_tokens")),
    }


def interval(evaluation: Record) -> tuple[float | None, float | None]:
    """The 95 % interval of an evaluation, (None, None) without one."""
    ends = evaluation.get("ci95")
    if not isinstance(ends, list) or len(ends) != 2:
        return None, None
    low, high = number(ends[0]), number(ends[1])
    return (low, high) if low is not None and high is not None else (None, None)


def share(value: Any) -> float | None:
    """pass@1 of a task or language: written as a number, or as a table with `pass_at_1`."""
    return number(table(value).get("pass_at_1")) if isinstance(value, dict) else number(value)


def _score_table(record: RunRecord) -> Record | None:
    """Tasks and languages by evaluated stages."""
    stages = [stage for stage in record.stages if stage.eval]
    groups = []
    for label, key in (("by task", "by_task"), ("by language", "by_language")):
        names = sorted({name for stage in stages for name in table((stage.eval or {}).get(key))})
        rows = [
            (name, [share(table((stage.eval or {}).get(key)).get(name)) for stage in stages])
            for name in names
        ]
        if rows:
            groups.append((label, rows))
    if not groups:
        return None
    everything = [number((stage.eval or {}).get("pass_at_1")) for stage in stages]
    consistency = [number((stage.eval or {}).get("language_consistency")) for stage in stages]
    return {
        "stages": [stage.name for stage in stages],
        "groups": groups,
        "all": everything,
        "consistency": consistency,
    }


def _cross(stage: StageRecord) -> Record | None:
    """One stage's tasks by languages, where the evaluation recorded both at once."""
    tasks = table((stage.eval or {}).get("by_task"))
    cells = {task: table(row) for task, row in table((stage.eval or {}).get("by_task_language")).items()}
    languages = sorted({language for row in cells.values() for language in row})
    if not languages:
        return None
    rows = [
        (task, [share(cells[task].get(language)) for language in languages], share(tasks.get(task)))
        for task in sorted(cells)
    ]
    bottom = [share(table((stage.eval or {}).get("by_language")).get(language)) for language in languages]
    return {
        "stage": stage.name,
        "languages": languages,
        "rows": rows,
        "bottom": bottom,
        "all": share(stage.eval),
    }


def _answer_stages(record: RunRecord, problems: list[Problem]) -> list[str]:
    """Stages that answered a probe, in the order of the run."""
    seen = {answer.stage for problem in problems for answer in problem.answers}
    known = [stage.name for stage in record.stages if stage.name in seen]
    return known + sorted(seen - set(known))


def _facts(record: RunRecord, report: Record) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in table(report["versions"]).items())
    machine = record.machine
    chosen = f"{machine.get('device', 'cpu')}, {machine.get('dtype', 'dtype not recorded')}"
    reason = f" ({machine['dtype_reason']})" if machine.get("dtype_reason") else ""
    mismatch = report["rl_mismatch_max"]
    facts = [
        ("Recipe", str(report["recipe"])),
        ("Recipe SHA-256", str(report["recipe_sha256"] or "not recorded")),
        ("Seed", str(report["seed"])),
        ("Ledger", _ledger_words(record)),
        ("Ledger head SHA-256", record.chain.sha256 if record.chain else "–"),
        ("Versions", versions or "not recorded"),
        ("Machine", _machine_words(machine)),
        ("Device", chosen + reason),
        ("Sessions", str(record.sessions)),
    ]
    if mismatch is not None:
        facts.append(
            (
                "Sampler against trainer",
                f"log-probabilities differ by at most {mismatch}"
                if mismatch
                else "not a bit of a log-probability differs",
            )
        )
    return facts


def _ledger_words(record: RunRecord) -> str:
    if record.chain is None:
        return f"BROKEN: {record.problem}"
    torn = "; a last line was torn by a kill and is left out" if record.chain.torn else ""
    return f"{record.chain.num_lines:,} lines, every link intact{torn}"


def _machine_words(machine: Record) -> str:
    parts = [machine.get("processor"), machine.get("system")]
    if machine.get("cores"):
        parts.insert(1, f"{machine['cores']} cores")
    if machine.get("memory_bytes"):
        parts.append(phrases.memory(number(machine["memory_bytes"])))
    return ", ".join(str(part) for part in parts if part) or "not recorded"


def _data_rows(record: RunRecord) -> list[Record]:
    rows = []
    for stage in record.stages:
        for data in stage.data:
            overlap = data.get("train_held_out_overlap")
            rows.append(
                data | {"stage": stage.name, "overlap": "not checked" if overlap is None else str(overlap)}
            )
    return rows
