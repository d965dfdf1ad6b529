"""Numbers as a reader who has never trained a model would say them; no-break spaces hold them together."""

import math
import re

from clearseek.ledger.lines import number
from clearseek.ledger.record import RunRecord, StageRecord, table, table_list

KINDS = {
    "tokenizer": (
        "cuts text into pieces",
        "Finds the pieces that text is best cut into. There is no model yet.",
    ),
    "pretrain": (
        "reads and predicts",
        "Reads text and learns, from random numbers, to guess the next piece of it.",
    ),
    "sft": (
        "copies examples",
        "Is shown questions with worked answers and learns to write such answers itself.",
    ),
    "rl": (
        "tries and is checked",
        "Tries each problem several times; a program checks, and what led to right answers grows likelier.",
    ),
    "reject": (
        "keeps its right answers",
        "Answers many problems; only the right answers are kept, as new examples.",
    ),
    "distill": (
        "learns from a bigger model",
        "A smaller model learns from the right answers of the bigger one.",
    ),
    "eval": ("is examined", "Is examined closely on problems held back from all training."),
}
_NBSP = "\u00a0"


def duration(seconds: float) -> str:
    """`42 s`, `8 min 40 s`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f}{_NBSP}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{_NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{_NBSP}min{_NBSP}{whole % 60:02d}{_NBSP}s"
    return f"{whole // 3600}{_NBSP}h{_NBSP}{whole % 3600 // 60:02d}{_NBSP}min"


def count(value: float) -> str:
    """`950`, `12K`, `0.9M`, `671B`: three digits at most, a million begins at a tenth."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size * (0.1 if letter == "M" else 1):
            scaled = value / size
            return f"{scaled:.1f}{letter}" if scaled < 9.95 else f"{scaled:,.0f}{letter}"
    return f"{value:.0f}"


def power(value: float) -> str:
    """`1.3 × 10¹³`, for counts of operations."""
    if value < 1:
        return "0"
    exponent = math.floor(math.log10(value))
    digits = f"{value / 10**exponent:.1f}"
    if digits == "10.0":
        digits, exponent = "1.0", exponent + 1
    return f"{digits}{_NBSP}×{_NBSP}10{str(exponent).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def percent(value: float | None, digits: int = 0) -> str:
    """A share from 0 to 1 as `88 %`; a dash when there is none. 100 and 0 are said only when exact."""
    if value is None or value != value:
        return "–"
    text = f"{100 * value:.{digits}f}"
    if (text == f"{100:.{digits}f}" and value < 1) or (text == f"{0:.{digits}f}" and value > 0):
        text = f"{100 * value:.{digits + 1}f}"
    return f"{text}{_NBSP}%"


def money(usd: float) -> str:
    """`$0.01`; less than that is said as such."""
    return "less than $0.01" if 0 < usd < 0.005 else f"${usd:,.2f}"


def energy(kwh: float) -> str:
    """`14 Wh` or `2.3 kWh`."""
    return f"{kwh:.1f}{_NBSP}kWh" if kwh >= 1 else f"{kwh * 1000:.1f}{_NBSP}Wh"


def memory(num_bytes: float | None) -> str:
    """`1.2 GiB`, `310 MiB`."""
    if not num_bytes:
        return "–"
    gib = num_bytes / 2**30
    return f"{gib:.1f}{_NBSP}GiB" if gib >= 1 else f"{num_bytes / 2**20:.0f}{_NBSP}MiB"


def cores(machine: dict[str, object]) -> str:
    """`2 cores`, or the accelerator."""
    if accelerated(machine):
        return f"a {machine['device']} device"
    used = number(machine.get("threads")) or number(machine.get("cores"))
    return "this machine" if not used else f"{used:.0f}{_NBSP}core{'s' if used != 1 else ''}"


def accelerated(machine: dict[str, object]) -> bool:
    """Whether something else than the processor did the work, so that a price per cpu-hour says little."""
    return str(machine.get("device") or "cpu").partition(":")[0] != "cpu"


def parameters(record: RunRecord, stage: StageRecord | None) -> tuple[float, float] | None:
    """Total and active parameters of a stage's model, looked up along its ancestors."""
    for ancestor in record.lineage(stage) if stage else []:
        sizes = table(ancestor.started.get("parameters"))
        all_of_them = number(sizes.get("total"))
        if all_of_them:
            return all_of_them, number(sizes.get("active")) or all_of_them
    return None


def beginning(record: RunRecord, stage: StageRecord) -> str:
    """What the weights were before the run: random, or a model the run was given."""
    for ancestor in record.lineage(stage):
        if ancestor.kind == "tokenizer":
            continue
        for parent in table_list(ancestor.started.get("parents")):
            path = str(parent.get("path") or "").rstrip("/")
            if path and not re.search(r"\.(jsonl?|parquet|txt|md)$|tokenizer", path):
                return f"the model {path.rpartition('/')[2]}"
    return "random weights"


def headline(record: RunRecord, wall_seconds: float, usd: float) -> str:
    """The whole run in one or two sentences."""
    stage = record.result or next(
        (each for each in reversed(record.stages) if each.kind != "tokenizer"), None
    )
    if stage is None:
        return "This run has begun; there is no model yet."
    size = parameters(record, stage)
    model = f"A model of {count(size[0])} parameters" if size else "A model"
    finished = record.state == "finished"
    price = "" if accelerated(record.machine) else f" for {money(usd)}"
    told = (
        f"{model} {'was trained' if finished else 'has been in training'} from {beginning(record, stage)} "
        f"{'in' if finished else 'for'} {duration(wall_seconds)} on {cores(record.machine)}{price}"
    )
    score = number(stage.eval.get("pass_at_1")) if stage.eval else None
    if score is None:
        return f"{told}; it has not been examined{'' if finished else ' yet'}."
    asked = "problems, some of which it saw in training" if record.overlap else "problems it has never seen"
    return f"{told}; {'it now' if finished else 'so far it'} solves {percent(score)} of {asked}."
