"""What a run has cost: time, processors, energy, operations, and money at a stated tariff; beside what R1 cost.

Quantities come from the run's clock. When a run ends they are signed in `cost.note`, beside the ledger and not in it,
because the ledger tells no time: the same recipe gives the same ledger on a slow day.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from clearseek.config.errors import InputError, RunError
from clearseek.ledger.lines import number
from clearseek.ledger.note import key_of_run, read_statement, replace_text, signed_statement
from clearseek.ledger.published_cost import beside_published
from clearseek.ledger.record import Record, RunRecord, StageRecord, load_run, table_list, total, values
from clearseek.ledger.seal import log_name
from clearseek.ledger.tariff import Tariff

NOTE = "cost.note"


@dataclass(frozen=True)
class StageCost:
    """What one stage took, all its sessions and repeated work together; joules are None where no counter was read."""

    name: str
    kind: str
    wall_seconds: float
    cpu_seconds: float
    gpu_seconds: float
    peak_memory_bytes: int | None
    tokens: int
    flops: float
    cpu_joules: float | None
    gpu_joules: float | None


def costs_of(record: RunRecord) -> list[StageCost]:
    """Every stage in order. Raises InputError for a run that has no clock for one of its stages."""
    for stage in record.stages:
        if not stage.clock:
            raise InputError(
                f"{record.directory}: stage {stage.name} has no time in timings.jsonl, as when a run was copied "
                "without it; its cost can't be told"
            )
    return [_stage_cost(record, stage) for stage in record.stages]


def _stage_cost(record: RunRecord, stage: StageRecord) -> StageCost:
    return StageCost(
        name=stage.name,
        kind=stage.kind,
        wall_seconds=stage.wall_seconds,
        cpu_seconds=stage.cpu_seconds,
        gpu_seconds=stage.wall_seconds * _gpus(record.run),
        peak_memory_bytes=int(max(values(stage.clock, "peak_memory_bytes"), default=0)) or None,
        tokens=stage.tokens,
        flops=stage.flops,
        cpu_joules=_joules(stage.clock, "cpu_joules"),
        gpu_joules=_joules(stage.clock, "gpu_joules", _gpus(record.run)),
    )


def _gpus(run: Record) -> int:
    return int(run.get("processes") or 1) if str(run.get("device")).startswith("cuda") else 0


def _joules(clock: list[Record], name: str, times: int = 1) -> float | None:
    return total(clock, name) * times if any(name in record for record in clock) else None


def _gain(record: RunRecord, stage: StageRecord) -> Record:
    """pass@1 of a stage's last evaluation, 0 to 1, and what it gained over the model that it began with."""
    accuracy = _accuracy(stage)
    if accuracy is None or stage.kind == "eval":  # nothing was asked, or nothing was taught
        return {"accuracy": accuracy, "gained": None}
    return {"accuracy": accuracy, "gained": accuracy - _accuracy_before(record, stage)}


def _accuracy(stage: StageRecord) -> float | None:
    return number((stage.eval or {}).get("pass_at_1"))


def _accuracy_before(record: RunRecord, stage: StageRecord) -> float:
    """Of the nearest ancestor that was evaluated; a model from random weights has 0."""
    before = (_accuracy(ancestor) for ancestor in record.lineage(stage)[1:])
    return next((accuracy for accuracy in before if accuracy is not None), 0.0)


def write_cost(run: Path) -> None:
    """Sign what a run that has ended has cost, once: a later session that has nothing to do changes nothing."""
    if (run / NOTE).exists():
        return
    record = load_run(run)
    if any(not stage.clock for stage in record.stages):
        return  # a fork of a copy without its clock
    facts = {"sessions": record.sessions, "machine": record.machine, "stages": _plain(costs_of(record))}
    with (run / "ledger.jsonl").open("rb") as file:
        note, _ = signed_statement(log_name(file.readline()), "cost", facts)
    replace_text(run / NOTE, note, "signed cost")


def _plain(stages: list[StageCost]) -> list[Record]:
    return [asdict(stage) for stage in stages]


def signed_costs(run: Path, key: str | None = None) -> list[StageCost] | None:
    """The stages as the run's key (or `key`) signed them; None where nothing is signed. RunError where altered."""
    if not (run / NOTE).exists():
        return None
    facts = read_statement(run / NOTE, "cost", key or key_of_run(run))
    try:
        return [StageCost(**stage) for stage in facts["stages"]]
    except (KeyError, TypeError):
        raise RunError(f"{run / NOTE} states a cost in another form: a newer clearseek wrote it") from None


def cost_of(run: Path, tariff: Tariff | None = None, key: str | None = None) -> Record:
    """The cost of a run as `clearseek cost --json` prints it.

    Raises InputError where it can't be told, RunError where the clock says otherwise than what was signed.
    """
    record, tariff = load_run(run), tariff or Tariff()
    signed = signed_costs(run, key)
    is_told_by_note = signed is not None and not record.timings
    stages = signed if is_told_by_note and signed else costs_of(record)
    if [stage.name for stage in stages] != [stage.name for stage in record.stages]:
        raise RunError(
            f"{run / NOTE} was signed for other stages than the ledger has: it belongs to another run"
        )
    if not stages:
        raise InputError(f"{run} has no stage yet whose cost could be told; let `clearseek run` begin one")
    if signed is not None and signed != stages:
        raise RunError(
            f"{run}: timings.jsonl doesn't say what {NOTE} was signed for (stage {_first_other(signed, stages)}): "
            "one of the two was changed"
        )
    gains = {stage.name: _gain(record, stage) for stage in record.stages}
    priced = [tariff.priced(asdict(stage)) | gains[stage.name] for stage in stages]
    summed = tariff.priced(_total(stages))
    return {
        "run": record.name,
        "state": record.state,
        "signed": signed is not None,
        "sessions": record.sessions or None,
        "machine": record.machine or None,
        "inherited": record.inherited,
        "tariff": tariff.stated(),
        "stages": [stage | {"per_point": _per_point(stage, stage["gained"])} for stage in priced],
        "total": summed,
        "result": _result(record, stages, tariff),
        "beside_deepseek": beside_published(summed, tariff.currency),
    }


def _first_other(signed: list[StageCost], stages: list[StageCost]) -> str:
    pairs = zip(signed, stages, strict=False)
    return next((one.name for one, other in pairs if one != other), f"{len(signed)} against {len(stages)}")


_SUMMED = ("wall_seconds", "cpu_seconds", "gpu_seconds", "tokens", "flops")


def _total(stages: list[StageCost]) -> Record:
    """All of them together; energy is known only where it is known of every stage."""
    tables = _plain(stages)
    summed: Record = {name: sum(table[name] for table in tables) for name in _SUMMED}
    for name in ("cpu_joules", "gpu_joules"):
        parts = [table[name] for table in tables]
        summed[name] = None if None in parts else sum(parts)
    peaks = [table["peak_memory_bytes"] for table in tables if table["peak_memory_bytes"]]
    return summed | {"peak_memory_bytes": max(peaks, default=None)}


def _per_point(stage: Record, gained: float | None) -> Record | None:
    """What each point of accuracy (of a hundred) took; None where none was gained."""
    if gained is None or gained <= 0:
        return None
    points = gained * 100
    names = ("wall_seconds", "cpu_seconds", "gpu_seconds", "flops", "kwh", "money")
    return {name: None if stage[name] is None else stage[name] / points for name in names}


def _result(record: RunRecord, costs: list[StageCost], tariff: Tariff) -> Record | None:
    """What led to the model that the run stands for, its ancestors and nothing else, and each point of its accuracy."""
    stage = record.result
    if stage is None:
        return None
    names = led_to(record, stage.name)
    stages = [cost for cost in costs if cost.name in names]
    summed, accuracy = tariff.priced(_total(stages)), _accuracy(stage)
    return summed | {
        "stage": stage.name,
        "stages": [cost.name for cost in stages],
        "accuracy": accuracy,
        "per_point": _per_point(summed, accuracy),
    }


def led_to(record: RunRecord, stage: str) -> set[str]:
    """Names of a stage and of all that it came from: models that it began with, and stages whose answers it read."""
    waiting, names = [stage], set[str]()
    while waiting:
        name = waiting.pop()
        found = record.stage(name)
        if found is None or name in names:
            continue
        names.add(name)
        waiting += [str(parent.get("stage")) for parent in table_list(found.started.get("parents"))]
        sources = [*table_list(found.config.get("data")), *table_list(found.config.get("sft_data"))]
        waiting += [str(source["stage"]) for source in sources if source.get("stage")]
    return names
