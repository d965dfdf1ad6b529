"""What an answer owes to a document or a source: a stage computed again without it, and the answer's probability after.

Without means: its places in the rows are as empty as padding. Every other document stays in its row, every row in
its step, seeds and learning rates as they were; the loss of a step is the mean over the tokens left. So what
differs in the end is what it taught, and nothing else. It ends with the stage: what later stages made is not told.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch

from clearseek.config.errors import InputError
from clearseek.config.progress import Progress
from clearseek.config.recipe import SupervisedStage
from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.model.checkpoint import load_model
from clearseek.model.decoder import Decoder
from clearseek.model.log_probs import target_log_probs
from clearseek.recipe.recorded import RecordedRun
from clearseek.recipe.replay import StageReplay
from clearseek.recipe.replay_context import ReplayContext
from clearseek.recipe.silent import SilentLedger
from clearseek.recipe.stages import TRAINERS, checkpoint_path
from clearseek.tasks.corpus import Example
from clearseek.text.documents import Document
from clearseek.text.examples import EncodedDocuments
from clearseek.text.packing import Policy, Rows, row_numbers
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.encoding import blank_rows, encoding_order
from clearseek.trace.kept import is_regenerated, text_of
from clearseek.trace.sources import run_readings, source_documents
from clearseek.train.supervised import SupervisedTrainer

_LONGEST_ANSWER = 128
_SHORTEST_HASH = 8


@dataclass(frozen=True)
class Without:
    """What is left out: a source of a stage, by its number, or one document of it, by its hash."""

    stage: str
    source: int
    document: str | None = None


@dataclass(frozen=True)
class Change:
    """The answer with and without; log-probabilities in nats over all its tokens.

    `first_step` is the first that read what is left out (None: no step did), `begun_at` the state computed from.
    """

    stage: str
    documents: int
    first_step: int | None
    begun_at: int
    steps: int
    answer: str
    tokens: int
    log_prob: float
    log_prob_without: float
    answer_without: str


def document_hash(document: Document | Example) -> str:
    """The SHA-256 (hex) over a document's words, as a trace names it."""
    return hashlib.sha256(text_of(document).encode("utf-8", "surrogatepass")).hexdigest()


def find_without(run: RecordedRun, told: str, stage: str | None = None) -> Without:
    """What `STAGE/NUMBER`, or a document's hash (its first 8 digits do), means in a run. InputError for neither."""
    readings = run_readings(run.run_dir)
    known = {f"{one.name}/{number}": one for one in readings.stages for number in range(len(one.data))}
    if told in known:
        return Without(known[told].name, int(told.rpartition("/")[2]))
    if len(told) < _SHORTEST_HASH or set(told) - set("0123456789abcdef"):
        raise InputError(
            f"{told!r} is no source of this run and no document's hash; sources: {', '.join(known)}; of a hash the "
            f"first {_SHORTEST_HASH} digits do"
        )
    for one in readings.stages if stage is None else [readings.stage(stage)]:
        for number in range(len(one.data)):
            for document in source_documents(readings, one, number):
                if (found := document_hash(document)).startswith(told):
                    return Without(one.name, number, found)
    where = f"stage {stage}" if stage else "no stage of this run"
    raise InputError(f"no document whose hash begins with {told}: {where} has read one")


@dataclass
class WithoutContext(ReplayContext):
    """A stage computed again without some of its documents."""

    without: Without | None = None
    masks: list[np.ndarray] = field(default_factory=list)
    touched: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # rows that have empty places now

    def stored_documents(self, index: int) -> Sequence[Document | Example] | None:
        """As trained on; which are left out is noted in the order that they will be encoded in."""
        found = super().stored_documents(index)
        assert found is not None
        assert self.without is not None
        assert self.readings is not None
        mask = np.full(len(found), index == self.without.source)
        if index == self.without.source and self.without.document is not None:
            mask[:] = [document_hash(document) == self.without.document for document in found]
        source = self.readings.stage(self.stage).sources[index]
        order = range(len(found)) if is_regenerated(source) else encoding_order(found)  # type: ignore[arg-type]
        self.masks.append(mask[list(order)])
        return found

    def learnt_rows(self, rows: Rows, whole: EncodedDocuments, policy: Policy, pad_id: int) -> Rows:
        """The rows with empty places."""
        left_out = np.concatenate(self.masks)
        blank = blank_rows(rows, whole, left_out, self.key("shuffle"), policy, pad_id)
        self.touched = (blank.segments != rows.segments).any(axis=1)
        return blank


class _Unheard(SilentLedger):
    """Nothing is compared: what is computed is meant to be another."""


class Counterfactual(StageReplay):
    """A stage of a run, ready to be computed without something."""

    def __init__(self, run: RecordedRun, without: Without, progress: Progress | None = None) -> None:
        super().__init__(run, without.stage, progress=progress)
        given = {one.name: getattr(self.context, one.name) for one in fields(self.context)}
        self.context = WithoutContext(**given | {"ledger": _Unheard(0), "without": without})

    def compute(self) -> tuple[Decoder, int | None, int]:
        """The model without; the first step that would have read what is left out, and the state it began at."""
        trainer = self._trainer()
        assert isinstance(self.context, WithoutContext)
        first = first_step(trainer, self.context.touched)
        before = trainer.total_steps if first is None else first - 1
        begun = max((point.step for point in self.points if point.step <= before), default=0)
        point = self._checked_point(begun)
        self.context.point = (
            None if point is None else replace(point, data_fingerprint=trainer.rows.fingerprint)
        )
        trainer.run()
        return trainer.learner.whole_model(), first, begun

    def _trainer(self) -> SupervisedTrainer:
        made = TRAINERS[type(self.stage)] if isinstance(self.stage, SupervisedStage) else None
        if made is None:
            raise InputError(
                f"stage {self.recorded.name} samples what it learns from, which would be other samples by now: choose "
                "what a stage has read that learns from documents alone"
            )
        trainer = made(self.context, self.stage, self.start.model, self.start.tokenizer)
        assert isinstance(trainer, SupervisedTrainer)
        return trainer


def first_step(trainer: SupervisedTrainer, touched: np.ndarray) -> int | None:
    """The first step (from 1) that reads one of the touched rows; None: no step does."""
    address = trainer.context.recipe.seed, trainer.context.stage
    for step in range(trainer.total_steps):
        if touched[row_numbers(len(touched), step, trainer.stage.batch_rows, *address)].any():
            return step + 1
    return None


def why(
    run: RecordedRun,
    prompt: str,
    without: Without,
    answer: str | None = None,
    is_plain: bool = False,
    progress: Progress | None = None,
) -> Change:
    """How likely an answer is to a prompt, by the stage's model as it is and as it is computed without something.

    `answer` is the whole completion, thought and all; default: the likeliest that the model as it is gives. With
    `is_plain` the prompt is a text to go on with, not a question in the chat format.
    """
    replay = Counterfactual(run, without, progress)
    try:
        context, tokenizer = replay.context, replay.start.tokenizer
        ids = (
            tokenizer.encode(prompt)
            if is_plain
            else tokenizer.encode_chat([{"role": "user", "content": prompt}])
        )
        model = load_model(checkpoint_path(run.run_dir, without.stage)).to(context.device)
        told = (
            tokenizer.encode(answer)
            if answer is not None
            else _likeliest(model, tokenizer, ids, context.dtype)
        )
        before = _log_prob(model, ids, told, context.dtype)
        after, first, begun = replay.compute()
        assert isinstance(context, WithoutContext)
        return Change(
            stage=without.stage,
            documents=int(np.concatenate(context.masks).sum()),
            first_step=first,
            begun_at=begun,
            steps=max(replay.recorded.steps),
            answer=tokenizer.decode(told),
            tokens=len(told),
            log_prob=before,
            log_prob_without=_log_prob(after, ids, told, context.dtype),
            answer_without=tokenizer.decode(_likeliest(after, tokenizer, ids, context.dtype)),
        )
    finally:
        replay.close()


def _likeliest(model: Decoder, tokenizer: Tokenizer, prompt: Sequence[int], dtype: torch.dtype) -> list[int]:
    engine = Engine(model, tokenizer.stop_ids, dtype)
    request = Request(tuple(prompt), 0, 1, Sampling(temperature=0.0, max_tokens=_LONGEST_ANSWER))
    return list(engine.generate([request])[0][0].tokens)


@torch.no_grad()
def _log_prob(model: Decoder, prompt: Sequence[int], answer: Sequence[int], dtype: torch.dtype) -> float:
    """Of all the answer's tokens together, in nats."""
    if not answer:
        raise InputError("an empty answer has no probability: give some text with --answer")
    model.training = False
    row = torch.tensor([[*prompt, *answer]], device=model.embedding.weight.device)
    states = model(row[:, :-1], torch.ones_like(row[:, :-1]), dtype, 0).states
    return float(
        target_log_probs(states[0, len(prompt) - 1 :], model.head_weight, row[0, len(prompt) :])
        .double()
        .sum()
    )
