"""Runs a recipe: every stage in order, skipping what is done and resuming what is not."""

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

import clearseek
from clearseek.config.errors import InputError, RunError
from clearseek.config.load import difference, load_recipe, recipe_sha256, resolved
from clearseek.config.progress import Progress, SilentProgress
from clearseek.config.recipe import EvalStage, Recipe, TokenizerStage
from clearseek.config.shipped import find_recipe
from clearseek.config.toml import to_toml
from clearseek.eval.examine import Examiner
from clearseek.ledger.code import checkout, code_sha256, computing_versions
from clearseek.ledger.cost import write_cost
from clearseek.ledger.lanes import NATIVE
from clearseek.ledger.log import Head, Ledger, read, verify
from clearseek.ledger.record import load_run
from clearseek.ledger.report import report_of, write_report
from clearseek.ledger.seal import check_not_cut, check_own, is_complete, is_own, seal, unnamed_files
from clearseek.ledger.timings import Timings, inherit_timings
from clearseek.ledger.verifier import FORMAT, SEALED_FOLDERS
from clearseek.model.decoder import Decoder
from clearseek.model.device import DeviceChoice
from clearseek.recipe.check import check_recipe
from clearseek.recipe.lane import compile_in, conditions_on, enter_lane
from clearseek.recipe.memory import check_memory
from clearseek.recipe.silent import SilentLedger, SilentTimings
from clearseek.recipe.stages import examine_midway, run_stage
from clearseek.tasks.worker import VerifierPool
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.shelves import build_indexes
from clearseek.train.context import StageContext
from clearseek.train.parallel import joined_world, on_first, own_device, roll_out_together, world
from clearseek.train.state import keep_states


@dataclass(frozen=True)
class RunResult:
    """Where a run lies and what its report says."""

    run_dir: Path
    report: dict[str, Any]


def run_recipe(
    recipe_path: str,
    overrides: list[str] | None = None,
    out: Path | None = None,
    fork: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
    lane: str | None = None,
) -> RunResult:
    """Run, or continue, a recipe given by path or by the name of a shipped one; `lane` as `enter_lane`.

    Raises InputError when the recipe is wrong or differs from the one the run was started with (unless
    `fork`, which continues in a new directory from the first stage that changed), and RunError when a stage
    fails.
    """
    recipe = load_recipe(find_recipe(recipe_path), overrides)
    check_recipe(recipe)
    wanted = Path(out) if out is not None else Path("runs") / recipe.name
    choice = enter_lane(lane, device, recipe)
    choice = replace(choice, device=own_device(choice.device))
    check_memory(recipe, choice.device, choice.dtype)
    told = progress or SilentProgress()
    with joined_world(choice.device) as processes:
        run_dir = on_first("the run directory", lambda: open_run_directory(recipe, wanted, fork))
        result = _run_to_its_end(recipe, run_dir, choice, told, lane)
    if recipe.ledger.index and processes.is_first:  # nobody waits for it
        _index(run_dir, told)
    return result


def _run_to_its_end(
    recipe: Recipe, run_dir: Path, choice: DeviceChoice, told: Progress, lane: str | None
) -> RunResult:
    """All that is not done yet of a run whose directory is there, and its report."""
    if on_first("the run's seal", lambda: is_complete(run_dir)):
        told.note(f"{run_dir} is finished and sealed: nothing is written into it any more")
        return RunResult(run_dir, on_first("the report", lambda: _report_of_complete(run_dir)))
    on_first("the run's key", lambda: check_own(run_dir))
    run = Run(recipe, run_dir, choice, told, lane)
    try:
        run.all_stages()
    finally:
        run.close()
    return RunResult(run_dir, on_first("the report", lambda: write_report(run_dir)))


def _index(run_dir: Path, told: Progress) -> None:
    """Build the indexes of a finished run among the user's files; where they can't be kept the run is no worse."""
    try:
        told.note(str(build_indexes(run_dir, told.note)))
    except (InputError, RunError) as error:
        told.note(f"{run_dir} is finished, but not indexed for tracing: {error}")


def _report_of_complete(run_dir: Path) -> dict[str, Any]:
    """The report of a run that has ended; the files that no seal covers are made where a kill left none.

    Its cost is for whoever sealed it to sign. RunError where a line of its ledger was changed.
    """
    verify(run_dir / "ledger.jsonl")
    if is_own(run_dir):
        write_cost(run_dir)
    if (run_dir / "report.json").is_file():
        return report_of(load_run(run_dir))
    return write_report(run_dir)


def open_run_directory(recipe: Recipe, run_dir: Path, fork: bool) -> Path:
    """Make the run's directory, or check that it's this recipe's; with `fork`, branch where it differs."""
    stored = run_dir / "recipe.toml"
    if stored.exists():
        # read as a recipe, so that a key that came with a newer version stands at its default
        old = without_none(resolved(load_recipe(stored)))
        changes = difference(old, without_none(resolved(recipe)))
        if not changes:
            return run_dir
        if not fork:
            raise InputError(
                f"{run_dir} was started with another recipe: {'; '.join(changes)}. "
                "Give --fork to continue in a new directory, or --out for a new run"
            )
        return fork_run(recipe, run_dir, old)
    if run_dir.exists() and any(not path.name.startswith(".") for path in run_dir.iterdir()):
        raise InputError(f"{run_dir} holds files but no run; give another --out")
    _write_recipe(recipe, run_dir)
    return run_dir


def fork_run(recipe: Recipe, run_dir: Path, old: dict[str, Any]) -> Path:
    """A new directory with the stages before the first changed one, and the ledger and the clock up to there."""
    new = without_none(resolved(recipe))
    target = next(p for n in range(2, 10_000) if not (p := run_dir.with_name(f"{run_dir.name}-{n}")).exists())
    kept = []
    if not any(line for line in difference(old, new) if not line.startswith("stages.")):
        for name in recipe.stages:
            if old["stages"].get(name) != new["stages"][name]:
                break
            kept.append(name)
    parent = verify(run_dir / "ledger.jsonl") if (run_dir / "ledger.jsonl").exists() else None
    records = read(run_dir / "ledger.jsonl")
    ends = [i + 1 for i, r in enumerate(records) if r["kind"] == "stage_finished" and r["stage"] in kept]
    target.mkdir(parents=True)
    _copy_lines(run_dir / "ledger.jsonl", target / "ledger.jsonl", max(ends, default=0))
    starts = [r for r in records[max(ends, default=0) :] if r["kind"] == "stage_started"]
    _copy_lines(
        run_dir / "samples.jsonl", target / "samples.jsonl", starts[0]["samples_lines"] if starts else None
    )
    for name in kept:
        folders = [run_dir / folder / name for folder in SEALED_FOLDERS]
        for path in (*folders, run_dir / "data" / f"{name}.jsonl"):
            if path.is_dir():
                shutil.copytree(path, target / path.relative_to(run_dir))
            elif path.is_file():
                (target / "data").mkdir(exist_ok=True)
                shutil.copy(path, target / path.relative_to(run_dir))
    if parent is not None:
        _record_fork(run_dir, target, kept, parent)
    _write_recipe(recipe, target)
    return target


def _record_fork(run_dir: Path, target: Path, kept: list[str], parent: Head) -> None:
    """Say in the new ledger which run it comes from and what that has computed of it; take over how long it took."""
    with Ledger(target / "ledger.jsonl") as ledger:
        ledger.append("fork", stages=kept, parent={"lines": parent.num_lines, "head": parent.sha256})
    inherit_timings(run_dir / "timings.jsonl", target / "timings.jsonl", kept)


def _copy_lines(source: Path, target: Path, count: int | None) -> None:
    """The first `count` lines (None: all) of a file into another."""
    lines = source.read_bytes().splitlines(keepends=True)[:count] if source.exists() else []
    target.write_bytes(b"".join(lines))


def _write_recipe(recipe: Recipe, run_dir: Path) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        partial = run_dir / ".recipe.toml.partial"
        partial.write_text(to_toml(without_none(resolved(recipe))), encoding="utf-8")
        partial.replace(run_dir / "recipe.toml")
    except OSError as error:
        raise RunError(f"cannot write {run_dir}: {error.strerror}") from None


def without_none(values: Any) -> Any:
    """TOML has no null: a key that is None is left out."""
    if isinstance(values, dict):
        return {key: without_none(value) for key, value in values.items() if value is not None}
    return [without_none(value) for value in values] if isinstance(values, list) else values


class Run:
    """One session of a run: its files are open and its verifiers are warm."""

    def __init__(
        self, recipe: Recipe, run_dir: Path, choice: DeviceChoice, progress: Progress, lane: str | None = None
    ) -> None:
        self.recipe, self.run_dir, self.choice, self.progress = recipe, run_dir, choice, progress
        self.lane = lane or (NATIVE.name if choice.device.type == "cpu" else None)
        self.ledger: Ledger
        self.samples: Ledger
        self.timings: Timings
        num_lines, num_samples = on_first("the run's files", self._open_files)
        if not world().is_first:
            self.ledger, self.samples = SilentLedger(num_lines), SilentLedger(num_samples)
            self.timings = SilentTimings()
        self.verifiers = VerifierPool()
        self.examiner: Callable[[], Examiner] = cache(self._examiner)
        self.evaluations: Callable[[], dict[str, list[str]]] = cache(self._evaluations)

    def _open_files(self) -> tuple[int, int]:
        self.ledger = Ledger(self.run_dir / "ledger.jsonl")
        try:
            check_not_cut(self.run_dir, len(self.ledger))
        except RunError:
            self.ledger.close()
            raise
        self.samples = Ledger(self.run_dir / "samples.jsonl")
        device = self.choice.device
        gpu = device.index or 0 if device.type == "cuda" else None
        self.timings = Timings(self.run_dir / "timings.jsonl", gpu)
        if self.timings.went_back_seconds:
            self.progress.note(
                f"this machine's clock stands {self.timings.went_back_seconds:.0f} s before the last line of "
                "timings.jsonl: the dates of this session are wrong; durations are not affected"
            )
        return len(self.ledger), len(self.samples)

    def close(self) -> None:
        """End the verifiers and close the files."""
        self.verifiers.close()
        for file in (self.ledger, self.samples, self.timings):
            file.close()

    def all_stages(self) -> None:
        """Every stage that is not finished yet, then the closing record."""
        self.progress.note(f"device {self.choice.device}, {_name(self.choice.dtype)}: {self.choice.reason}")
        records = self._records()
        self._open_ledger(records)
        for index, (name, stage) in enumerate(self.recipe.stages.items(), start=1):
            if self._is_finished(name, records):
                self.progress.note(f"{name}: done before")
                self._drop_resume_points(name)
                continue
            self.progress.stage(name, stage.kind, index, len(self.recipe.stages))
            self._back_to_start_of(name, records)
            self.timings.start_stage(name)
            run_stage(self._context(name), self.examiner)
            self._drop_resume_points(name)
            self._seal()
        if not any(record["kind"] == "run_finished" for record in records):
            files = on_first("the run's files", lambda: unnamed_files(self.run_dir, self._written()))
            self.ledger.append("files", outputs=files)
            self.ledger.append("run_finished")
            self.ledger.sync()
        self._seal()
        if world().is_first:
            write_cost(self.run_dir)

    def _written(self) -> list[dict[str, Any]]:
        return read(self.run_dir / "ledger.jsonl")

    def _seal(self) -> None:
        """Sign what is recorded by now, once nothing of it is still being recomputed."""
        if world().is_first and not self.ledger.replaying:
            seal(self.run_dir, self.ledger.lines)

    def _records(self) -> list[dict[str, Any]]:
        """The ledger as the first rank reads it."""
        return on_first("the ledger", self._written)

    def _drop_resume_points(self, name: str) -> None:
        context = self._context(name)
        on_first("dropping resume points", lambda: keep_states(context.partial_dir, context.states_dir))

    def _open_ledger(self, records: list[dict[str, Any]]) -> None:
        """The first record says what ran where; a session on something else begins with one of its own."""
        numbers: dict[str, Any] = {
            "recipe": self.recipe.name,
            "recipe_sha256": recipe_sha256(self.recipe),
            "seed": self.recipe.seed,
            "result": self.recipe.final,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "clearseek": clearseek.__version__,
                **computing_versions(),
            },
            "code_sha256": code_sha256(),
            "device": str(self.choice.device),
            "dtype": _name(self.choice.dtype),
            "dtype_reason": self.choice.reason,
            "threads": torch.get_num_threads(),
            "processes": world().size,
            "lane": self.lane,
        }
        changes = on_first("what the run began with", lambda: _changes(records, numbers))
        if changes and _unfinished(records):
            raise RunError(
                f"{self.run_dir}: stage {_unfinished(records)} was begun otherwise: {'; '.join(changes)}. "
                "Continue it as it was begun, or give --out for a new run"
            )
        if changes and not any(record["kind"] == "run_finished" for record in records):
            machine = conditions_on(self.choice.device)
            form: dict[str, Any] = {} if records else {"format": FORMAT}
            self.ledger.append("run", **form, **numbers, checkout=checkout(), machine=machine)

    def _is_finished(self, name: str, records: list[dict[str, Any]]) -> bool:
        return any(r["kind"] == "stage_finished" and r["stage"] == name for r in records)

    def _back_to_start_of(self, name: str, records: list[dict[str, Any]]) -> None:
        """Rewind both logs to where an unfinished stage began, so that it is recorded again and compared."""
        for record in records:
            if record["kind"] == "stage_started" and record["stage"] == name:
                self.ledger.rewind(record["line"])
                self.samples.rewind(record["samples_lines"])
                return

    def _context(self, name: str) -> StageContext:
        recipe = self.recipe
        return StageContext(
            recipe=recipe,
            stage=name,
            run_dir=self.run_dir,
            ledger=self.ledger,
            samples=self.samples,
            timings=self.timings,
            progress=self.progress,
            verifiers=self.verifiers,
            device=self.choice.device,
            dtype=self.choice.dtype,
            compile=compile_in(self.lane, recipe),
            examine=lambda model, tokenizer, step: self._examine(name, model, tokenizer, step),
            examined_prompts=self._examined_prompts(name),
            evaluations=self.evaluations,
        )

    def _examined_prompts(self, name: str) -> frozenset[str]:
        """Prompts that are kept for evaluation; files of problems are parted by content instead."""
        stage = self.recipe.stages[name]
        if isinstance(stage, TokenizerStage) or not getattr(stage, "evaluate", False):
            return frozenset()
        return frozenset(problem.prompt for problem in self.examiner().problems)

    def _evaluations(self) -> dict[str, list[str]]:
        """The prompts of every evaluation that the recipe asks for: `evaluation`, and stages with their own."""
        stages = self.recipe.stages.items()
        examined = [(name, stage) for name, stage in stages if isinstance(stage, EvalStage)]
        own = {name: stage.evaluation for name, stage in examined if stage.evaluation is not None}
        examiners = {name: Examiner(table, self.recipe.seed, self.verifiers) for name, table in own.items()}
        if len(own) < len(examined) or any(getattr(stage, "evaluate", False) for _, stage in stages):
            examiners = {"evaluation": self.examiner(), **examiners}
        return {name: [problem.prompt for problem in each.problems] for name, each in examiners.items()}

    def _examiner(self) -> Examiner:
        return Examiner(self.recipe.evaluation, self.recipe.seed, self.verifiers, roll_out_together)

    def _examine(self, name: str, model: Decoder, tokenizer: Tokenizer, step: int) -> dict[str, Any]:
        return examine_midway(self._context(name), self.examiner(), model, tokenizer, step)


def _changes(records: list[dict[str, Any]], numbers: dict[str, Any]) -> list[str]:
    """In what the machine or the software differs from the run's last session, or that there was none."""
    sessions = [record for record in records if record["kind"] == "run"]
    if not sessions:
        return ["nothing"]
    return difference({key: sessions[-1].get(key) for key in numbers}, numbers)


def _unfinished(records: list[dict[str, Any]]) -> str | None:
    """The stage that was begun last, if it is not finished."""
    begun = [record["stage"] for record in records if record["kind"] == "stage_started"]
    done = {record["stage"] for record in records if record["kind"] == "stage_finished"}
    return begun[-1] if begun and begun[-1] not in done else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
