"""Resume points: weights, optimiser, counters and the data's fingerprint, written beside and renamed.

Random streams are addressed, so none has to be stored; the data cursor is the step.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearseek.config.errors import RunError
from clearseek.model.checkpoint import load_tensors, save_tensors, write_directory
from clearseek.model.decoder import Decoder
from clearseek.model.lora import Adapter
from clearseek.model.stored import open_tensors
from clearseek.train.optimizer import Optimizer
from clearseek.train.parallel import copy_into, on_first, whole_tensors

_KEPT = 2  # resume points kept beside the one being written


@dataclass
class ResumePoint:
    """Where a stage stands after `step` steps; `extra` is whatever else the stage must remember."""

    stage: str
    step: int
    ledger_lines: int
    samples_lines: int
    data_fingerprint: str
    totals: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    stays: bool = False  # moved to the run's states when newer ones have come
    directory: Path | None = None

    def check(self, stage: str, data_fingerprint: str) -> None:
        """Raise RunError unless the point belongs to this stage and these data."""
        if (self.stage, self.data_fingerprint) != (stage, data_fingerprint):
            raise RunError(
                f"{self.directory}: this resume point was made with other data "
                f"({self.data_fingerprint[:12]}, now {data_fingerprint[:12]}); restore the data or use "
                "another --out"
            )

    def restore(self, model: Decoder | Adapter, optimizer: Optimizer) -> dict[str, Tensor]:
        """Load weights and optimiser state in place; returns the other tensors that were saved."""
        assert self.directory is not None
        tensors, _ = load_tensors(self.directory / "state.safetensors")
        load_model_state(model, _with_prefix(tensors, "model."))
        optimizer.load_state(_with_prefix(tensors, "optimizer."))
        return _with_prefix(tensors, "other.")


def save_resume_point(
    folder: Path,
    point: ResumePoint,
    model: Decoder | Adapter,
    optimizer: Optimizer,
    others: dict[str, Tensor] | None = None,
    states: Path | None = None,
) -> None:
    """Write `folder/step-000100/`; the oldest goes, or moves to `states` if it stays. RunError if the disk is full."""
    tensors = state_tensors(model, optimizer, others)
    what = f"the resume point of {point.stage}, step {point.step}"
    on_first(what, lambda: _write(folder, point, tensors, states))


def state_tensors(
    model: Decoder | Adapter, optimizer: Optimizer, others: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """All that a resume point holds, by name, whole on the first rank; on the others nothing."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer.state().items()}
    tensors |= {f"other.{name}": tensor for name, tensor in (others or {}).items()}
    return whole_tensors(tensors)


def _write(folder: Path, point: ResumePoint, tensors: dict[str, Tensor], states: Path | None) -> None:
    with write_directory(folder / f"step-{point.step:06d}") as directory:
        save_tensors(directory / "state.safetensors", tensors)
        record = {key: value for key, value in asdict(point).items() if key != "directory"}
        (directory / "state.json").write_text(json.dumps(record), encoding="utf-8")
    for old in _points(folder)[:-_KEPT]:
        _move_or_drop(old, states)


def keep_states(folder: Path, states: Path) -> None:
    """A stage has ended: what stays of its resume points moves to `states`, the rest goes."""
    for point in _points(folder):
        _move_or_drop(point, states)
    shutil.rmtree(folder, ignore_errors=True)


def _move_or_drop(point: Path, states: Path | None) -> None:
    if states is None or not _read_point(point).stays:
        shutil.rmtree(point)
        return
    states.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(states / point.name, ignore_errors=True)  # the same, from before a kill
    point.replace(states / point.name)


def kept_states(states: Path) -> list[ResumePoint]:
    """The resume points that a stage left, oldest first. RunError names one that is torn."""
    return [_read_point(path) for path in _points(states)]


def _read_point(directory: Path) -> ResumePoint:
    try:
        values = json.loads((directory / "state.json").read_text(encoding="utf-8"))
        return ResumePoint(**values, directory=directory)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{directory}: not a whole resume point ({error}); restore the run from a copy"
        ) from None


def latest_resume_point(folder: Path) -> ResumePoint | None:
    """As every rank finds it: see `_latest`."""
    return on_first(f"finding the latest resume point in {folder.name}", lambda: _latest(folder))


def _latest(folder: Path) -> ResumePoint | None:
    """The newest resume point, or None; a torn one is a RunError that says which older one is whole."""
    points = _points(folder)
    if not points:
        return None
    newest = points[-1]
    try:
        values = json.loads((newest / "state.json").read_text(encoding="utf-8"))
        with open_tensors(newest / "state.safetensors"):
            return ResumePoint(**values, directory=newest)
    except (OSError, ValueError, TypeError, RunError) as error:
        older = (
            f"; remove it to continue from {points[-2].name}"
            if len(points) > 1
            else "; remove it to start the stage over"
        )
        raise RunError(f"{newest}: not a whole resume point ({error}){older}") from None


def oldest_resume_time(folder: Path) -> float:
    """When the oldest of the resume points was written, in the file system's seconds; 0 where there is none.

    A stage that goes on from any of them asks again for nothing that it was answered before.
    """
    return min((path.stat().st_mtime for path in _points(folder)), default=0.0)


def load_model_state(model: Decoder | Adapter, state: dict[str, Tensor]) -> None:
    """Copy tensors into a model, or an adapter, of the same shape."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            copy_into(tensor, state[name])


def _points(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir()) if folder.is_dir() else []


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
