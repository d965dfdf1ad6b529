"""What a stage is given when it is computed again without something: the run's own documents with places left empty.

Without means: the places of a document in the rows are as empty as padding, and a problem is passed over when it is
drawn. Every other document stays in its row, every row in its step, seeds and learning rates as they were; the loss of
a step is the mean over the tokens left. So what differs in the end is what it taught, and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from clearseek.config.errors import InputError, RunError
from clearseek.config.recipe import DataSource, DistillStage, PretrainStage, RlStage, SftStage
from clearseek.engine.sampler import Sampler
from clearseek.model.decoder import Decoder
from clearseek.recipe.replay import checked_point
from clearseek.recipe.replay_context import ReplayContext
from clearseek.recipe.without import Place, Without
from clearseek.tasks.corpus import Example
from clearseek.tasks.problem import Problem
from clearseek.text.documents import Document
from clearseek.text.examples import EncodedDocuments
from clearseek.text.packing import Policy, Rows
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.encoding import blank_rows, encoding_order, row_owners
from clearseek.trace.kept import document_sha256, is_regenerated, text_of
from clearseek.trace.sources import source_documents
from clearseek.trace.steps import steps_of_rows
from clearseek.train.context import StageContext
from clearseek.train.corpus import read_source
from clearseek.train.rollouts import Rollout
from clearseek.train.state import ResumePoint, kept_states
from clearseek.train.supervised import steps_for_epochs, steps_for_tokens


class Untouched(Exception):
    """No step of the stage has read or asked what is left out: its model is the run's."""


@dataclass(frozen=True)
class Seen:
    """What a place had of what is left out: how many documents or problems, how many tokens its steps read of them.

    A document that is read in three epochs counts three times. `tokens` is None where answers aren't kept (reject).
    """

    place: str
    count: int
    tokens: int | None
    first_step: int | None


@dataclass(frozen=True)
class Read:
    """What a stage has read of every document: which is it, in which source, the tokens that its steps read of it."""

    documents: list[Document | Example]
    sources: np.ndarray
    left_out: np.ndarray
    tokens: np.ndarray


@dataclass
class WithoutContext(ReplayContext):
    """A stage computed again without something, or (`is_anew`) on top of a model or of examples that are others now.

    `rewritten` are the stages whose examples are others. `seen`, `read` and `begun_at` say what came of it.
    """

    without: Without = field(default_factory=lambda: Without("nothing", ()))
    is_anew: bool = False
    rewritten: frozenset[str] = frozenset()
    first_asked: int | None = None
    first_step: int | None = None
    begun_at: int = 0
    seen: list[Seen] = field(default_factory=list)
    read: Read | None = None
    _documents: list[Document | Example] = field(default_factory=list)
    _masks: list[np.ndarray] = field(default_factory=list)
    _first_read: int | None = None
    _fingerprint: str = ""

    def stored_documents(self, index: int) -> Sequence[Document | Example] | None:
        """As trained on, or as the earlier stage has written them now; which are left out is noted."""
        found, source = self._given(index)
        order = range(len(found)) if is_regenerated(source) else encoding_order(found)  # type: ignore[arg-type]
        ordered = [found[number] for number in order]
        self._masks.append(np.array([self._is_left_out(index, one) for one in ordered], bool))
        self._documents += ordered
        return found

    def _given(self, index: int) -> tuple[Sequence[Document | Example], DataSource]:
        assert self.readings is not None
        reading = self.readings.stage(self.stage)
        source = reading.sources[index]
        if source.stage not in self.rewritten:
            return source_documents(self.readings, reading, index), source
        try:
            return read_source(self, source, index).documents, source
        except InputError as error:
            raise RunError(f"stage {source.stage} has left stage {self.stage} nothing ({error})") from None

    def _is_left_out(self, index: int, document: Document | Example) -> bool:
        if self.without.only is None:
            return self.without.is_at(self.stage, index)
        return self.without.is_at(self.stage, index) and self.without.has(
            self.stage, index, document_sha256(text_of(document))
        )

    def learnt_rows(self, rows: Rows, whole: EncodedDocuments, policy: Policy, pad_id: int) -> Rows:
        """The rows with empty places."""
        left_out = np.concatenate(self._masks)
        owners = row_owners(whole, self.key("shuffle"), rows.tokens.shape[1] - 1, policy)
        blank = blank_rows(rows, owners, left_out, pad_id)
        num_steps, address = self._steps(len(rows))
        steps = steps_of_rows(len(rows), num_steps, *address)
        touched = steps[:, (blank.segments != rows.segments).any(axis=1)]
        self._first_read = int(touched.min()) if touched.size and touched.min() <= num_steps else None
        self._fingerprint = blank.fingerprint
        times = np.broadcast_to((steps <= num_steps).sum(0)[:, None], owners.shape)
        tokens = np.bincount(owners[owners >= 0], times[owners >= 0], len(whole)).astype(np.int64)
        self._note(left_out, tokens)
        return blank

    def _steps(self, num_rows: int) -> tuple[int, tuple[int, int, str]]:
        """How many steps read the rows, and by which address (rows a step, seed, name)."""
        stage, seed = self.recipe.stages[self.stage], self.recipe.seed
        if isinstance(stage, RlStage):
            return stage.steps, (stage.micro_batch_rows, seed, f"{self.stage}/sft")
        assert isinstance(stage, PretrainStage | SftStage | DistillStage)
        address = (stage.batch_rows, seed, self.stage)
        if isinstance(stage, PretrainStage):
            return steps_for_tokens(stage.tokens, stage.batch_rows, stage.sequence_length), address
        return steps_for_epochs(stage.epochs, num_rows, stage.batch_rows), address

    def _note(self, left_out: np.ndarray, tokens: np.ndarray) -> None:
        sources = np.repeat(np.arange(len(self._masks)), [len(mask) for mask in self._masks])
        self.read = Read(self._documents, sources, left_out, tokens)
        for index, mask in enumerate(self._masks):
            if self.without.is_at(self.stage, index):
                count = int(tokens[left_out & (sources == index)].sum())
                self.seen.append(
                    Seen(str(Place(self.stage, index)), int(mask.sum()), count, self._first_read)
                )

    def start_point(self) -> ResumePoint | None:
        """The last state that was kept before the first use of what is left out; Untouched where there is no use."""
        if self.is_anew:
            return None
        uses = [step for step in (self._first_read, self.first_asked) if step is not None]
        if not uses:
            raise Untouched
        assert self.readings is not None
        assert self.recorded is not None
        self.first_step = min(uses)
        states = self.readings.run_dir / "states" / self.stage
        points = kept_states(states)
        self.begun_at = max((point.step for point in points if point.step < self.first_step), default=0)
        point = checked_point(points, self.recorded, self.begun_at, states)
        if point is None or isinstance(self.recipe.stages[self.stage], RlStage):
            return point
        return replace(point, data_fingerprint=self._fingerprint)

    def asked(self, problems: list[Problem]) -> list[Problem]:
        """All but those that are left out."""
        return [one for one in problems if not self.without.has(self.stage, None, one.id)]

    def stored_rollout(self, step: int) -> Rollout | None:
        """What a step (from 0) had sampled, as long as the policy is still the run's; then it samples anew."""
        is_same = not self.is_anew and self.first_step is not None and step + 1 < self.first_step
        return self.read_rollout(step) if is_same else None

    def keep_rollout(self, step: int, rollout: Rollout) -> dict[str, Any]:
        """Nothing is kept of what is sampled."""
        return {}

    def open_sampler(self, model: Decoder, tokenizer: Tokenizer) -> Sampler:
        """What samples anew."""
        return StageContext.open_sampler(self, model, tokenizer)
