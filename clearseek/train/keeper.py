"""What a stage leaves of its state on the way: hashes in its step records, resume points, and those that stay.

A stage keeps its two latest resume points in `checkpoints/STAGE.partial/`, to go on from after a kill. Of the older
ones some move to `states/STAGE/`, evenly apart and within the recipe's `ledger.states_mb`: a replay begins there.
Beside them `leaves.jsonl` has the hash of every tensor for every hash in the ledger.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from clearseek.config.recipe import TrainStage
from clearseek.train.context import StageContext
from clearseek.train.learner import Learner
from clearseek.train.parallel import on_first
from clearseek.train.state import ResumePoint, save_resume_point, state_tensors
from clearseek.train.state_hash import leaves_of, num_bytes, root_of

_MB = 1_000_000
_OFTENEST = 20  # steps between hashes of a small state

Others = Callable[[], dict[str, Tensor] | None]


class StateKeeper:
    """Hashes and saves the state of one stage; `others` are tensors that belong to it besides the learner's."""

    def __init__(
        self,
        context: StageContext,
        stage: TrainStage,
        learner: Learner,
        num_steps: int,
        others: Others = lambda: None,
    ) -> None:
        self.context, self.stage, self.learner, self.num_steps = context, stage, learner, num_steps
        self.others = others
        self._num_bytes: int | None = None

    def resume(self, fingerprint: str) -> tuple[ResumePoint, dict[str, Tensor]] | None:
        """Load the point that the stage goes on from, with its other tensors; None: it begins at its start."""
        point = self.context.start_point()
        on_first(
            "the hashes of tensors", lambda: self.context.leaves.rewind(0 if point is None else point.step)
        )
        if point is None:
            return None
        point.check(self.context.stage, fingerprint)
        others = point.restore(self.learner.trained, self.learner.optimizer)
        self.context.rewind(point)
        return point, others

    def hashed(self, step: int, is_last: bool = False) -> dict[str, str]:
        """The `state` of a step's record: its root, where one is due; call it once after every step, on every rank."""
        if not (is_last or self._saves(step) or step % self._hash_every() == 0):
            return {}
        leaves = leaves_of(self._tensors())
        self.context.leaves.append(step, leaves)
        return {"state": root_of(leaves)}

    def save(
        self, step: int, fingerprint: str, totals: dict[str, float], extra: dict[str, Any] | None = None
    ) -> None:
        """Write a resume point where one is due."""
        if not self._saves(step) or self.context.is_replay:
            return
        self.context.timings.append("step", self.context.stage, step, tokens=totals["tokens"])
        point = self.context.resume_point(step, fingerprint, totals, extra)
        point.stays = self._stays(step)
        learner = self.learner
        save_resume_point(
            self.context.partial_dir,
            point,
            learner.trained,
            learner.optimizer,
            self.others(),
            self.context.states_dir,
        )

    def _tensors(self) -> dict[str, Tensor]:
        return state_tensors(self.learner.trained, self.learner.optimizer, self.others())

    def _saves(self, step: int) -> bool:
        return step % self.stage.checkpoint_every == 0 and step < self.num_steps

    def _bytes(self) -> int:
        """Of the state as it is at the first question: later ones must not be answered otherwise after a resume."""
        if self._num_bytes is None:
            parts = self.learner.trained.state_dict() | (self.others() or {})
            learnt = {str(n): p for n, p in enumerate(self.learner.optimizer.parameters)}
            self._num_bytes = num_bytes(parts) + 2 * num_bytes(learnt)  # of AdamW; of Muon a little too much
        return self._num_bytes

    def _hash_every(self) -> int:
        told = self.context.recipe.ledger.hash_every
        return told or max(_OFTENEST, math.ceil(self._bytes() / _MB))

    def _stays(self, step: int) -> bool:
        fit = int(self.context.recipe.ledger.states_mb * _MB / max(self._bytes(), 1))
        points = (self.num_steps - 1) // self.stage.checkpoint_every
        return fit > 0 and (step // self.stage.checkpoint_every) % math.ceil(points / fit) == 0
