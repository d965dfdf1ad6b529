"""What a stage is given when it is computed again: the run's own documents and rollouts, and a ledger that compares."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from clearseek.config.errors import RunError
from clearseek.config.model import ModelConfig
from clearseek.config.recipe import RejectStage, RlStage
from clearseek.engine.request import Completion, Request
from clearseek.engine.sampler import Sampler
from clearseek.ledger.lines import exact, file_sha256, plain
from clearseek.ledger.log import first_difference
from clearseek.model.decoder import Decoder
from clearseek.recipe.recorded import Record, RecordedStage
from clearseek.recipe.silent import SilentLedger
from clearseek.tasks.corpus import Example
from clearseek.text.documents import Document
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.kept import held_out_path, read_shard, shard_path
from clearseek.trace.sources import RunReadings, source_documents
from clearseek.train.context import StageContext
from clearseek.train.leaves import LeavesFile
from clearseek.train.parallel import world
from clearseek.train.rollouts import Rollout, read_rollout
from clearseek.train.state import ResumePoint
from clearseek.train.state_hash import Leaves
from clearseek.train.state_hash import first_difference as first_tensor

_NOT_COMPARED = frozenset({"line", "prev", "kind", "stage", "outputs"})


class Reached(Exception):
    """The last step that was asked for has been compared, or one that differs."""


class ComparingLedger(SilentLedger):
    """Compares what is recorded with what was, up to the step `until`; evaluations are held in `examined`, by step.

    Of several processes the first compares, and none stops before the others: they compute every step together.
    """

    def __init__(self, recorded: RecordedStage, leaves: "HeldLeaves", kept: LeavesFile) -> None:
        super().__init__(0)
        self.recorded, self.leaves, self.kept = recorded, leaves, kept
        self.until = 0
        self.first_wrong: tuple[int, str] | None = None
        self.examined: dict[int, Record] = {}

    def append(self, kind: str, stage: str | None = None, **fields: Any) -> None:
        """Compare one record; Reached after the last step that is asked for."""
        if kind == "mix":
            self._check_rows(fields)
        if kind == "eval":
            self.examined[int(fields["step"])] = fields
        if kind != "step":
            return
        step = int(fields["step"])
        if self.first_wrong is None and world().is_first:
            difference = self._difference(self.recorded.steps[step], fields)
            self.first_wrong = None if difference is None else (step, difference)
        if step >= self.until or (self.first_wrong is not None and world().size == 1):
            raise Reached

    def _check_rows(self, fields: Record) -> None:
        if self.recorded.mix is not None and self.recorded.mix["rows_sha256"] != fields["rows_sha256"]:
            raise RunError(
                f"stage {self.recorded.name} packs into other rows than line {self.recorded.mix['line']} of the ledger "
                "says: another version of clearseek made this run; replay it with that one"
            )

    def _difference(self, written: Record, now: Record) -> str | None:
        if (different := differing_field(written, now)) is None:
            return None
        field, was, found = different
        if field != "state":
            return f"{field} was {was} and is {found}"
        step = int(now["step"])
        tensor = first_tensor(self.kept.read().get(step, {}), self.leaves.held.get(step, {}))
        return f"the state's hash; the first tensor that is another is {tensor}"


def differing_field(written: Record, now: Record) -> tuple[str, str, str] | None:
    """The first field of a record that comes out otherwise, with both values; what an older one lacks isn't asked."""
    before, after = (
        plain(
            {key: value for key, value in record.items() if key not in _NOT_COMPARED and key in written},
            "record",
        )
        for record in (written, now)
    )
    return None if exact(before) == exact(after) else first_difference(before, after)


@dataclass
class HeldLeaves:
    """As a LeavesFile, in memory."""

    held: dict[int, Leaves] = field(default_factory=dict)

    def append(self, step: int, leaves: Leaves) -> None:
        """Hold the hashes of a state's tensors."""
        self.held[step] = leaves

    def rewind(self, step: int) -> None:
        """What is computed again comes out the same."""


@dataclass
class ReplayContext(StageContext):
    """A stage that reads what the run kept and writes nothing."""

    is_replay: ClassVar[bool] = True
    point: ResumePoint | None = None
    readings: RunReadings | None = None
    recorded: RecordedStage | None = None
    tokenizer: Tokenizer | None = None
    resample: bool = False
    held: HeldLeaves = field(default_factory=HeldLeaves)

    @property
    def leaves(self) -> HeldLeaves:  # type: ignore[override]
        """The hashes of the states that were computed again."""
        return self.held

    def is_exact(self, stage: RlStage, config: ModelConfig) -> bool:
        """As the ledger says. A run whose ledger does not is older than `auto`: its default was true."""
        if self.recorded is None or stage.exact != "auto":
            return super().is_exact(stage, config)
        return bool(self.recorded.started.get("exact", True))

    def start_point(self) -> ResumePoint | None:
        """Where the replay begins."""
        return self.point

    def rewind(self, point: ResumePoint) -> None:
        """There is nothing to go back in."""

    def stored_documents(self, index: int) -> Sequence[Document | Example] | None:
        """The documents of a source, as trained on."""
        assert self.readings is not None
        return source_documents(self.readings, self.readings.stage(self.stage), index)

    def stored_held_out(self, index: int) -> Sequence[Document] | None:
        """What was held out of a source, as examined on; None where the run does not keep it."""
        assert self.readings is not None
        path = held_out_path(shard_path(self.run_dir, self.stage, index))
        record = self.readings.stage(self.stage).data[index]
        for named in record.get("outputs") or []:
            if named["path"] == path.relative_to(self.run_dir).as_posix():
                check_hash(path, named["sha256"], record["line"])
                return list(read_shard(path))
        return None

    def stored_rollout(self, step: int) -> Rollout | None:
        """What a step had sampled; None where it is to be sampled again."""
        return None if self.resample else self.read_rollout(step)

    def read_rollout(self, step: int) -> Rollout:
        """The file that a step (from 0) names, held to its hash."""
        assert self.readings is not None
        assert self.recorded is not None
        assert self.tokenizer is not None
        record = self.recorded.steps[step + 1]
        if not record.get("outputs"):
            raise RunError(
                f"line {record['line']} of the ledger names no rollout of stage {self.stage}, step {step + 1}: an "
                "older clearseek made this run"
            )
        named = record["outputs"][0]
        path = self.readings.run_dir / named["path"]
        check_hash(path, named["sha256"], record["line"])
        return read_rollout(path, self.tokenizer)

    def keep_rollout(self, step: int, rollout: Rollout) -> dict[str, Any]:
        """Compare what was sampled again, token by token; RunError where it is another."""
        if self.resample:
            check_same_rollout(self.read_rollout(step), rollout, f"{self.stage}, step {step + 1}")
        return {}

    def open_sampler(self, model: Decoder, tokenizer: Tokenizer) -> Sampler:
        """What samples again; where rollouts are read nothing does."""
        is_sampling = self.resample or isinstance(self.recipe.stages[self.stage], RejectStage)
        return super().open_sampler(model, tokenizer) if is_sampling else _NoSampler()


class _NoSampler:
    """Stands where a replay from stored rollouts has no use for an engine."""

    weights_version = 0

    def load_weights(self, model: Decoder) -> None:
        """Nothing is sampled."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Never called."""
        raise AssertionError("a replay from stored rollouts sampled")


def check_same_rollout(stored: Rollout, sampled: Rollout, where: str) -> None:
    """RunError names the first completion whose tokens, log-probabilities or verdict are not those stored."""
    for before, now in zip(stored.groups, sampled.groups, strict=False):
        if (before.problem, before.prompt) != (now.problem, now.prompt):
            raise RunError(f"{where}: problem {before.problem.id} was asked, now {now.problem.id}")
        for number, (old, new) in enumerate(zip(before.judged, now.judged, strict=True)):
            place = f"{where}: completion {number} of problem {before.problem.id}"
            if old.completion.tokens != new.completion.tokens:
                raise RunError(f"{place} has other tokens")
            if old.completion.log_probs != new.completion.log_probs:
                raise RunError(f"{place} has other log-probabilities")
            if old.verdict != new.verdict:
                raise RunError(f"{place} was judged {old.verdict}, now {new.verdict}")
    if stored.learnt != sampled.learnt or len(stored.groups) != len(sampled.groups):
        raise RunError(f"{where}: other groups are learnt from")


def check_hash(path: Path, digest: str, line: int) -> None:
    """Hold a file to the hash in a line of the ledger. RunError where it is lost, or another."""
    if not path.is_file():
        raise RunError(f"{path}, named in line {line} of the ledger, is missing: the run was half copied")
    if file_sha256(path) != digest:
        raise RunError(f"{path} is not the file that line {line} of the ledger names: it was changed")
