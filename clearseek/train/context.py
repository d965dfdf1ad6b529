"""What a stage is given besides its own table: where it writes, what it counts with, how it is examined."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from clearseek.config.model import ModelConfig
from clearseek.config.progress import Progress
from clearseek.config.recipe import Recipe, RlStage, StageBase
from clearseek.engine.engine import Engine
from clearseek.engine.sampler import Sampler
from clearseek.engine.streams import stream_key
from clearseek.engine.vllm_engine import VllmEngine
from clearseek.ledger.log import Ledger
from clearseek.ledger.process import cpu_seconds
from clearseek.ledger.timings import Timings
from clearseek.model.compiling import pays
from clearseek.model.decoder import Decoder
from clearseek.model.device import can_compile
from clearseek.model.kernels.library import fits
from clearseek.model.lora import Adapter
from clearseek.tasks.corpus import Example
from clearseek.tasks.problem import Problem
from clearseek.tasks.worker import VerifierPool
from clearseek.text.documents import Document
from clearseek.text.examples import EncodedDocuments
from clearseek.text.packing import Policy, Rows
from clearseek.text.tokenizer import Tokenizer
from clearseek.train.exactness import is_exact
from clearseek.train.flops import training_flops
from clearseek.train.leaves import LeavesFile
from clearseek.train.parallel import on_first, world
from clearseek.train.rollouts import Rollout, write_rollout
from clearseek.train.state import ResumePoint, latest_resume_point, oldest_resume_time

EAGER_FLOPS_PER_SECOND = 60e9  # of small models on two cores, for deciding whether compiling pays
Examine = Callable[
    [Decoder, Tokenizer, int], dict[str, Any]
]  # model, tokenizer, step → the evaluation's record


@dataclass
class StageContext:
    """One stage of one run on one process."""

    is_replay: ClassVar[bool] = False  # nothing is written, what is computed is compared
    recipe: Recipe
    stage: str
    run_dir: Path
    ledger: Ledger
    samples: Ledger
    timings: Timings
    progress: Progress
    verifiers: VerifierPool
    device: torch.device
    dtype: torch.dtype
    compile: bool | Literal["auto"]
    examine: Examine
    examined_prompts: frozenset[str] = frozenset()  # held out: no training document may hold one
    evaluations: Callable[[], Mapping[str, Sequence[str]]] = dict  # every evaluation's items
    adapter: Adapter | None = None  # what learns in the model's stead
    cpu_seconds_before: float = field(default_factory=cpu_seconds)  # of this process when the stage began

    @property
    def partial_dir(self) -> Path:
        """Where the stage keeps its resume points."""
        return self.run_dir / "checkpoints" / f"{self.stage}.partial"

    @property
    def states_dir(self) -> Path:
        """Where those resume points lie that stay in the run."""
        return self.run_dir / "states" / self.stage

    @cached_property
    def leaves(self) -> LeavesFile:
        """The hashes of the stage's tensors."""
        return LeavesFile(self.states_dir / "leaves.jsonl")

    def start_point(self) -> ResumePoint | None:
        """Where the stage goes on from; None: it begins."""
        return latest_resume_point(self.partial_dir)

    def stored_documents(self, index: int) -> Sequence[Document | Example] | None:
        """The documents of a source as the run keeps them, to train on again; None: they are read where they are."""
        return None

    def stored_held_out(self, index: int) -> Sequence[Document] | None:
        """What was held out of a source as the run keeps it, to examine again; None: it is read where it is."""
        return None

    def learnt_rows(self, rows: Rows, whole: EncodedDocuments, policy: Policy, pad_id: int) -> Rows:
        """Of the rows that the documents `whole` were packed into, what is learnt: all of it."""
        return rows

    def asked(self, problems: list[Problem]) -> list[Problem]:
        """Of the problems drawn for a round of sampling, those that are put to the model: all of them."""
        return problems

    def stored_rollout(self, step: int) -> Rollout | None:
        """What a step (from 0) had sampled when it was first computed; None: it has to sample."""
        return None

    def keep_rollout(self, step: int, rollout: Rollout) -> dict[str, Any]:
        """Leave what a step (from 0) has sampled in the run; returns the field of its record that names the file."""
        path = self.run_dir / "rollouts" / self.stage / f"step-{step + 1:06d}.safetensors"
        digest = on_first("what a step has sampled", lambda: write_rollout(path, rollout))
        return {"outputs": [{"path": path.relative_to(self.run_dir).as_posix(), "sha256": digest}]}

    def key(self, *address: int | str) -> int:
        """A random stream's key within this stage of this run."""
        return stream_key(self.recipe.seed, self.stage, *address)

    def open_sampler(self, model: Decoder, tokenizer: Tokenizer) -> Sampler:
        """What the stage's completions are sampled with, holding these weights."""
        stage = self.recipe.stages[self.stage]
        if not isinstance(stage, StageBase) or stage.engine is None:
            given = self.recipe.cache_gib
            cache_bytes = None if given is None else int(given * 2**30)
            exact = self.is_exact(stage, model.config) if isinstance(stage, RlStage) else None
            return Engine(model, tokenizer.stop_ids, self.dtype, exact=exact, cache_bytes=cache_bytes)
        return VllmEngine(
            model,
            tokenizer,
            self.dtype,
            stage.engine,
            self.partial_dir / "engine",
            self.progress.note,
            on_first,
            world().rank,
            lambda: oldest_resume_time(self.partial_dir),
        )

    def is_exact(self, stage: RlStage, config: ModelConfig) -> bool:
        """Whether a stage on such a model learns in the form that it samples in."""
        return is_exact(stage.exact, config)

    def compile_for(self, model: Decoder, tokens: float, sequence_length: int) -> bool:
        """Whether to compile for this many training tokens: where it pays, unless the recipe says."""
        if self.compile != "auto":
            return self.compile
        if fits(self.dtype, model.embedding.weight) or can_compile() is not None:
            return False  # the kernels are faster than what is compiled, from the first step
        return pays(training_flops(model.config, tokens, sequence_length) / EAGER_FLOPS_PER_SECOND)

    def resume_point(
        self, step: int, fingerprint: str, totals: dict[str, float], extra: dict[str, Any] | None = None
    ) -> ResumePoint:
        """A resume point of this stage at the ledger's present end."""
        self.ledger.sync()
        self.samples.sync()
        return ResumePoint(
            self.stage, step, len(self.ledger), len(self.samples), fingerprint, dict(totals), extra or {}
        )

    def rewind(self, point: ResumePoint) -> None:
        """Go back to where a resume point was made; what is recorded again must be the same."""
        self.ledger.rewind(point.ledger_lines)
        self.samples.rewind(point.samples_lines)

    def record(self, kind: str, **fields: Any) -> None:
        """Write a deterministic fact of this stage to the ledger."""
        self.ledger.append(kind, self.stage, **fields)
