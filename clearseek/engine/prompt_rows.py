"""Which rows of a batch tell of prompts that are to be reported, and what becomes of their scores."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from clearseek.engine.runner import Batch
from clearseek.engine.slots import Slots


class PromptRows:
    """Rows of a batch whose scores tell of prompts that are to be reported, beside those that are wanted anyway."""

    def __init__(self, slots: Slots, batch: Batch) -> None:
        """`batch` now asks for the scores of all of them."""
        self._slots, self._drawn = slots, batch.wanted
        found = [self._of(batch, slot) for slot in slots.taken if slots.at(slot).is_reporting]
        self._rows = [rows for rows in found if len(rows)]
        self.batch = batch
        if self._rows:
            self.batch = replace(batch, wanted=np.unique(np.concatenate([batch.wanted, *self._rows])))

    def _of(self, batch: Batch, slot: int) -> np.ndarray:
        """The prompt's last token says nothing of the prompt."""
        is_prompt = batch.positions < len(self._slots.at(slot).request.prompt) - 1
        return np.flatnonzero((batch.slots == slot) & is_prompt)

    def note(self, scores: Tensor) -> Tensor:
        """Fill in the reports from scores [wanted, V]; gives back those that were wanted anyway."""
        if not self._rows:
            return scores
        for rows in self._rows:
            report = self._slots.at(int(self.batch.slots[rows[0]])).report
            assert report is not None
            report.note(int(self.batch.positions[rows[0]]), scores[self._places(rows)])
        return scores[self._places(self._drawn)]

    def _places(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.searchsorted(self.batch.wanted, rows))
