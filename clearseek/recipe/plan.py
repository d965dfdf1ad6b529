"""What a run would take, before anything runs: parameters, memory, operations, time and money by stage."""

from dataclasses import dataclass
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.recipe import Recipe
from clearseek.recipe.check import check_lengths
from clearseek.recipe.memory import Memory, memory_of, too_little
from clearseek.recipe.speed import Machine, find_machine
from clearseek.recipe.workload import Work, work_of

_CONVENTION = (
    "operations: 2 for each weight that a token passes and for half of the attention square (causal), three "
    "times that for training; completions at their full budget, which is more than most take"
)


@dataclass(frozen=True)
class StagePlan:
    """One stage's work, memory and time."""

    work: Work
    memory: Memory
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """A figure that the recipe's authors published beside the plan's own, in device hours."""

    stages: str
    planned_hours: float
    published_hours: float
    source: str

    @property
    def difference(self) -> float:
        """How far the plan is off, as a share of what was published."""
        return self.planned_hours / self.published_hours - 1


@dataclass(frozen=True)
class Plan:
    """The whole recipe on one machine or on a number of accelerators."""

    recipe: Recipe
    machine: Machine
    stages: list[StagePlan]
    comparisons: list[Comparison]
    notes: list[str]

    def shown_memory(self, stage: StagePlan) -> str:
        """What a stage takes as held today; where that does not fit, the least, marked as such."""
        available = self.machine.memory_bytes
        fits = available is None or stage.memory.total <= available
        return _bytes(stage.memory.total) if fits else f"≥ {_bytes(stage.memory.at_least)}"

    @property
    def seconds(self) -> float:
        """Wall time of all stages, one after the other."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def device_hours(self) -> float:
        """Wall time times the number of devices."""
        return self.hours_of(self.seconds)

    def hours_of(self, seconds: float) -> float:
        """Device hours of a wall time."""
        return seconds / 3600 * self.machine.count

    def cost_of(self, seconds: float) -> float | None:
        """Dollars of a wall time; None where no price is known."""
        price = self.machine.price_per_hour
        return None if price is None else price * self.hours_of(seconds)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values: bytes, seconds, operations, dollars."""
        machine = self.machine
        return {
            "recipe": self.recipe.name,
            "machine": {
                "name": machine.name,
                "count": machine.count,
                "memory_bytes": machine.memory_bytes,
                "price_per_hour": machine.price_per_hour,
                "sources": machine.sources,
            },
            "stages": [self._stage(stage) for stage in self.stages],
            "totals": {
                "seconds": self.seconds,
                "device_hours": self.device_hours,
                "flops": sum(s.work.training_flops + s.work.sampling_flops for s in self.stages),
                "memory_bytes": max((s.memory.total for s in self.stages), default=0),
                "cost": self.cost_of(self.seconds),
            },
            "published": [
                {
                    "stages": c.stages.split("+"),
                    "planned_device_hours": c.planned_hours,
                    "published_device_hours": c.published_hours,
                    "difference": c.difference,
                    "source": c.source,
                }
                for c in self.comparisons
            ],
            "notes": [*self.notes, _CONVENTION],
        }

    def _stage(self, stage: StagePlan) -> dict[str, Any]:
        work = stage.work
        return {
            "name": work.name,
            "kind": work.kind,
            "parameters": {
                "total": work.total_parameters,
                "active": work.active_parameters,
                "trained": work.num_trained,
            },
            "tokens": {"trained": work.trained_tokens, "sampled": work.sampled_tokens},
            "flops": {"training": work.training_flops, "sampling": work.sampling_flops},
            "memory": stage.memory.to_dict(),
            "seconds": stage.seconds,
            "device_hours": self.hours_of(stage.seconds),
            "cost": self.cost_of(stage.seconds),
        }

    def render(self) -> list[str]:
        """The same for people, as lines."""
        machine = self.machine
        memory = "" if machine.memory_bytes is None else f", {_bytes(machine.memory_bytes)} of memory"
        each = " each" if machine.count > 1 else ""
        lines = [f"{self.recipe.name} on {_times(machine.count)}{machine.name}{memory}{each}", ""]
        lines += _table([_HEADER, *map(self._row, self.stages), self._total_row()])
        if self.comparisons:
            lines += ["", "device hours, planned and published"]
            lines += [
                f"  {c.stages.replace('+', ' + ')}: {_hours(c.planned_hours)} planned, "
                f"{_hours(c.published_hours)} published ({c.difference:+.1%}; {c.source})"
                for c in self.comparisons
            ]
        lines += ["", "what this rests on", *(f"  {name}: {s}" for name, s in machine.sources.items())]
        return lines + [f"  {note}" for note in (*self.notes, _CONVENTION)]

    def _row(self, stage: StagePlan) -> list[str]:
        work = stage.work
        if work.config is None:
            return [work.name, work.kind, *[""] * 7]
        return [
            work.name,
            work.kind,
            _parameters(work),
            _count(work.trained_tokens),
            _count(work.sampled_tokens),
            f"{work.training_flops + work.sampling_flops:.2e}",
            self.shown_memory(stage),
            _duration(stage.seconds),
            _dollars(self.cost_of(stage.seconds)),
        ]

    def _total_row(self) -> list[str]:
        flops = sum(s.work.training_flops + s.work.sampling_flops for s in self.stages)
        time, cost = _duration(self.seconds), _dollars(self.cost_of(self.seconds))
        return ["total", "", "", "", "", f"{flops:.2e}", "", time, cost]


_HEADER = ["stage", "kind", "parameters", "trained", "sampled", "FLOP", "memory", "time", "cost"]


def plan_recipe(
    recipe: Recipe, accelerator: str | None = None, count: int = 1, price_per_hour: float | None = None
) -> Plan:
    """Plan a recipe for this machine, or for `count` accelerators at `price_per_hour` dollars each.

    Raises InputError for an unknown accelerator, for a start that isn't there, for rows longer than a model's
    context, and where a stage needs more memory than the machine has.
    """
    check_lengths(recipe)
    machine = find_machine(recipe, accelerator, count, price_per_hour)
    works = [work_of(recipe, name) for name in recipe.stages]
    memories = [memory_of(recipe, work, machine.compute_bytes, machine.count) for work in works]
    notes = [note for work in works for note in work.notes] + _memory_notes(machine, works, memories)
    stages = [
        StagePlan(work, memory, machine.seconds(recipe, work))
        for work, memory in zip(works, memories, strict=True)
    ]
    return Plan(recipe, machine, stages, _comparisons(recipe, machine, stages), notes)


def _memory_notes(machine: Machine, works: list[Work], memories: list[Memory]) -> list[str]:
    """What has to be said where memory is short; InputError where it is too short whatever one does."""
    available = machine.memory_bytes
    if available is None:
        return []
    short = []
    for work, memory in zip(works, memories, strict=True):
        needed = memory.total if machine.is_here else memory.at_least
        if needed > available:
            each = "each of " if machine.count > 1 else ""
            name = "this machine" if machine.is_here else f"{each}{_times(machine.count)}{machine.name}"
            raise InputError(too_little(work.name, needed, available, name))
        if memory.total > available:
            short.append(work.name)
    if not short:
        return []
    return [
        f"memory: {', '.join(short)} would not fit as clearseek holds it today (all activations, "
        "a whole engine on each device); ≥ is what is left on each device where layers are recomputed, and "
        "model, cache and rows parted over all"
    ]


def _comparisons(recipe: Recipe, machine: Machine, stages: list[StagePlan]) -> list[Comparison]:
    seconds = {stage.work.name: stage.seconds for stage in stages}
    compared = []
    for key, published in recipe.published.items():
        if published.gpu_hours is not None:
            planned = sum(seconds[name] for name in key.split("+")) / 3600 * machine.count
            compared.append(Comparison(key, planned, published.gpu_hours, published.source))
    return compared


def _table(rows: list[list[str]]) -> list[str]:
    """Columns as wide as their longest cell, the first two left-aligned; empty columns are left out."""
    kept = [index for index in range(len(rows[0])) if any(row[index] for row in rows[1:])]
    widths = {index: max(len(row[index]) for row in rows) for index in kept}
    return [
        "  ".join(
            row[index].ljust(widths[index]) if index < 2 else row[index].rjust(widths[index])
            for index in kept
        ).rstrip()
        for row in rows
    ]


def _parameters(work: Work) -> str:
    """`671.0B (37.0B active)`, and how many of an adapter learn."""
    learning = f", {_count(work.adapter_parameters)} trained" if work.adapter_parameters else ""
    return f"{_count(work.total_parameters)} ({_count(work.active_parameters)} active{learning})"


def _times(count: int) -> str:
    return f"{count:,} × " if count > 1 else ""


def _count(number: float) -> str:
    """`671.0B`, `3.4M`, `960`."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}" if number else "0"


def _bytes(number: float) -> str:
    return f"{number / 2**30:,.1f} GiB" if number >= 2**30 else f"{number / 2**20:,.0f} MiB"


def _hours(hours: float) -> str:
    return f"{hours / 1e3:,.0f}K" if hours >= 10_000 else f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _duration(seconds: float) -> str:
    """`42 s`, `12 min`, `7.5 h`, `54 days`."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (72 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}" if unit != "h" else f"{seconds / size:.1f} h"
    return f"{seconds / 86400:,.0f} days"


def _dollars(cost: float | None) -> str:
    return "" if cost is None else f"${cost:,.0f}" if cost >= 100 else f"${cost:.2f}"
