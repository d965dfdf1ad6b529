"""One step of the engine: a batch through the model, and the tokens that are drawn from its scores."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch

from clearseek.engine import row_sampler
from clearseek.engine.bell import Bell
from clearseek.engine.drafters import Drafter, Guesses, MtpDrafter
from clearseek.engine.fused_runner import Course, FusedRunner
from clearseek.engine.prompt_rows import PromptRows
from clearseek.engine.reported import alternatives, draws
from clearseek.engine.request import Draw
from clearseek.engine.runner import Runner
from clearseek.engine.scheduler import Scheduler
from clearseek.engine.slots import Slots
from clearseek.engine.speculation import Acceptance

_MOST_FORCED = 64  # tokens that must come next, read in one step


@dataclass
class Stepper:
    """What a step needs; `num_guesses` is how many tokens the drafter guesses at a time."""

    runner: Runner
    slots: Slots
    scheduler: Scheduler
    stop_ids: Collection[int]
    dtype: torch.dtype
    drafter: Drafter | None
    num_guesses: int
    acceptance: Acceptance
    bell: Bell

    def advance(self, turns: int) -> None:
        """A step for everyone, or up to so many at once where nothing has to be seen to between tokens."""
        slots, runner = self.slots, self.runner
        reading = bool(slots.not_active)
        plain = bool(np.all(slots.is_plain[slots.active > 0]))
        alone = self.drafter is None or isinstance(self.drafter, MtpDrafter)
        if isinstance(runner, FusedRunner) and plain and alone and not reading:
            self._decode(runner, turns)
        else:
            self._step()

    def _decode(self, runner: FusedRunner, turns: int) -> None:
        """Tokens for everyone by so many turns, in one call."""
        guessing = self.drafter.guessing if isinstance(self.drafter, MtpDrafter) else None
        most = self.scheduler.make_room(max(turns, 1 + self.num_guesses))
        active = int(self.slots.active.sum())
        enough = max(active // 32, 1) if self.scheduler.num_waiting else active
        if not active:
            return
        course = Course(self._ends, most, enough, turns, self.bell)
        if guessing is not None:
            guessing.begin(self.slots)
        runner.decode(self.slots, course, guessing)
        if guessing is not None:
            self.acceptance.add(*guessing.counts())

    def _step(self) -> None:
        """One step for everyone: those that are being read, and new tokens for each that is being answered."""
        guesses = self._guesses()
        batch, asked = self.scheduler.batch(guesses)
        if not len(batch.tokens):
            return
        prompts, states = PromptRows(self.slots, batch), None
        if self.drafter is not None and self.drafter.wants_states:
            scores, states = self.runner.step_with_states(prompts.batch)
        else:
            scores = self.runner.step(prompts.batch)
        scores = prompts.note(scores)
        self.scheduler.computed(batch)
        if len(asked):
            self._take(asked, scores, guesses)
        if self.drafter is not None:
            self.drafter.follow(self.slots, batch, states)

    def _guesses(self) -> Guesses:
        """What may follow the newest token of each that is being answered; there is room for it in the cache.

        Tokens that must come next are guesses that come true: so they are read at once, like a prompt.
        """
        slots = self.slots
        others = np.flatnonzero(slots.active.astype(bool) & ~slots.is_plain).tolist()
        longest = max((len(self._forced(slot)) for slot in others), default=0)
        ahead = self.scheduler.make_room(1 + max(self.num_guesses, min(longest, _MOST_FORCED)))
        left = np.minimum(slots.budget - slots.num_sampled - 1, ahead - 1)
        told = {slot: list(self._forced(slot)[: left[slot]]) for slot in others if slots.active[slot]}
        forced = {slot: tokens for slot, tokens in told.items() if tokens}
        if self.drafter is None or ahead == 1:
            return forced
        free = [slot for slot in np.flatnonzero(slots.active).tolist() if slot not in forced]
        return forced | self.drafter.propose(
            slots, {slot: min(int(left[slot]), self.num_guesses) for slot in free}
        )

    def _forced(self, slot: int) -> tuple[int, ...]:
        return () if self.slots.is_plain[slot] else self.slots.at(slot).row.forced

    def _take(self, asked: np.ndarray, scores: torch.Tensor, guesses: Guesses) -> None:
        """Draw a token for each slot, and as long as it is the one that was guessed the one after it."""
        if not guesses:
            self._draw(asked, scores)
            return
        counts = [1 + len(guesses.get(slot, ())) for slot in asked.tolist()]
        begins = dict(zip(asked.tolist(), np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
        accepted = dict.fromkeys((slot for slot in guesses if not self._forced(slot)), 0)
        going, depth = asked.tolist(), 0
        while going:
            rows = torch.tensor([begins[slot] + depth for slot in going], device=scores.device)
            self._draw(np.array(going), scores if len(rows) == len(scores) else scores[rows])
            true = [
                slot for slot in going if guesses.get(slot, [])[depth : depth + 1] == [self._newest(slot)]
            ]
            for slot in true:
                if slot in accepted:
                    accepted[slot] += 1
            going, depth = [slot for slot in true if self.slots.active[slot]], depth + 1
        for slot, count in accepted.items():
            self.acceptance.note(len(guesses[slot]), count)

    @property
    def _ends(self) -> np.ndarray:
        return np.array(sorted(self.stop_ids), np.int64)

    def _newest(self, slot: int) -> int:
        return int(self.slots.last_token[slot])

    def _draw(self, asked: np.ndarray, scores: torch.Tensor) -> None:
        """A token for each slot by its row of scores [slots, V]."""
        if isinstance(self.runner, FusedRunner) and bool(np.all(self.slots.is_plain[asked])):
            self.runner.take(self.slots, self._ends, asked, scores)
            return
        numbers = torch.from_numpy(self.slots.uniforms[asked, self.slots.num_sampled[asked]])
        rows = [self.slots.at(slot).row for slot in asked.tolist()]
        # in whatever the model's kernels compute, theirs draws as it does when it decodes on
        dtype = torch.bfloat16 if isinstance(self.runner, FusedRunner) else self.dtype
        drawn = row_sampler.draw(rows, scores, numbers.to(scores.device), dtype)
        tokens = drawn.tokens.cpu().numpy()
        self.slots.record(asked, tokens, drawn.log_probs.cpu().numpy(), drawn.entropies.cpu().numpy())
        told = draws(rows, drawn, scores)
        for place, (slot, token) in enumerate(zip(asked.tolist(), tokens.tolist(), strict=True)):
            if self._note(slot, token, scores, place, told.get(place)):
                self.slots.active[slot] = 0

    def _note(self, slot: int, token: int, scores: torch.Tensor, place: int, draw: Draw | None) -> bool:
        """Tell a sequence of a new token, drawn by one row of scores [slots, V]; whether that ends it."""
        answer = self.slots.at(slot)
        log_prob = float(self.slots.log_probs[slot, self.slots.num_sampled[slot] - 1])
        if math.isnan(log_prob):
            return True
        if answer.ending is None:
            is_end = bool(self.slots.minds_ends[slot]) and token in self.stop_ids
            return is_end or bool(self.slots.num_sampled[slot] >= self.slots.budget[slot])
        answer.row.note(token)
        answer.text.append(answer.ending.feed(token))
        beside = alternatives(answer.request.sampling, scores[place], token, log_prob)
        if beside is not None:
            answer.alternatives.append(beside)
        if draw is not None:
            answer.draws.append(draw)
        return answer.ending.finish_reason is not None or answer.row.error is not None
