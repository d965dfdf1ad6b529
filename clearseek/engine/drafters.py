"""Who guesses a sample's next tokens: what followed the same words before, a small model, or the model's own module.

Guesses cost nothing but time where they are wrong, so what a drafter knows may be less than right: after a prefix
that was found in the cache, or where it was left out of a step.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from clearseek.engine import row_sampler
from clearseek.engine.fused_runner import FusedRunner
from clearseek.engine.guessing import Guessing
from clearseek.engine.row import Row
from clearseek.engine.runner import Batch, Runner
from clearseek.engine.slots import Slots
from clearseek.engine.speculation import Speculation

Guesses = dict[int, list[int]]  # slot → what may come next
_LONGEST = 4  # words that have to be the same, at most


class Drafter(Protocol):
    """Guesses and is told of every step. `beside` is a runner of its own, over the same blocks as the model's."""

    wants_states: bool
    beside: Runner | None

    def propose(self, slots: Slots, most: Mapping[int, int]) -> Guesses:
        """Guesses for active slots, at most so many for each."""

    def follow(self, slots: Slots, batch: Batch, states: Tensor | None) -> None:
        """A batch was computed and tokens were drawn from it; with the final states [N, hidden] of its rows."""


class NgramDrafter:
    """Looks for where the newest words stood before, the latest such place, and guesses what followed there."""

    wants_states = False
    beside: Runner | None = None

    def propose(self, slots: Slots, most: Mapping[int, int]) -> Guesses:
        """Guesses for active slots, at most so many for each."""
        found = {slot: continued(slots.known(slot), count) for slot, count in most.items()}
        return {slot: guesses for slot, guesses in found.items() if guesses}

    def follow(self, slots: Slots, batch: Batch, states: Tensor | None) -> None:
        """It keeps nothing."""


def continued(tokens: np.ndarray, count: int) -> list[int]:
    """What followed the last appearance of the longest ending of `tokens` that appeared before.

    Where that is less than `count` tokens, it goes on with what was guessed: a text that turns in a circle turns on.
    """
    for length in range(min(_LONGEST, len(tokens) - 1), 0, -1):
        windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], length)
        places = np.flatnonzero((windows == tokens[-length:]).all(axis=1))
        if len(places):
            circle = tokens[places[-1] + length :]
            return [int(circle[i % len(circle)]) for i in range(count)]
    return []


class ModelDrafter:
    """A small model that reads what the model reads, over the same blocks, and runs ahead of it."""

    wants_states = False

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.beside: Runner | None = runner
        self._known: dict[
            int, tuple[int, int]
        ] = {}  # slot → who sits there, and how many positions it has read

    def propose(self, slots: Slots, most: Mapping[int, int]) -> Guesses:
        """Guesses for active slots, at most so many for each."""
        guesses: Guesses = {slot: [] for slot in most}
        for depth in range(max(most.values(), default=0)):
            running = [slot for slot in sorted(most) if most[slot] > depth]
            rows = [(slot, *self._unread(slots, slot, guesses[slot])) for slot in running]
            scores = self.runner.step(_batch(slots, rows, wanted=True))
            for slot, token in zip(running, _drawn(slots, running, depth, scores, self.runner), strict=True):
                guesses[slot].append(token)
        for slot, found in guesses.items():
            if found:
                self._known[slot] = slots.seated[slot], int(slots.position[slot]) + len(found)
        return guesses

    def _unread(self, slots: Slots, slot: int, guesses: list[int]) -> tuple[int, np.ndarray]:
        """The first position that is still to be read, and the tokens from there on."""
        if guesses:
            return int(slots.position[slot]) + len(guesses), np.array(guesses[-1:])
        first = self._read_of(slots, slot)
        return first, slots.known(slot, first)

    def _read_of(self, slots: Slots, slot: int) -> int:
        """How many positions of a slot it knows; what was found in the cache counts as read."""
        sitter, count = self._known.get(slot, (-1, 0))
        position = int(slots.position[slot])
        return min(count, position) if sitter == slots.seated[slot] else position

    def follow(self, slots: Slots, batch: Batch, states: Tensor | None) -> None:
        """Read what the model has read of prompts."""
        rows = []
        for begin, count in batch.stretches:
            slot, first = int(batch.slots[begin]), int(batch.positions[begin])
            if _has_ended(slots, slot) or self._known.get(slot, (-1, 0)) > (slots.seated[slot], first):
                continue  # it has run ahead of what was decoded
            tokens = slots.known(slot, first)[:count]
            tokens = tokens[: slots.position[slot] - first] if slots.active[slot] else tokens
            rows.append((slot, first, tokens))
            self._known[slot] = slots.seated[slot], first + len(tokens)
        if rows:
            self.runner.step(_batch(slots, rows, wanted=False))


class MtpDrafter:
    """The model's own multi-token module (arXiv:2412.19437 §2.2), over the model's blocks.

    After each step it takes the states of what became certain, with the tokens that follow there: the last gives the
    first guess. Further ones come from its own states, as if they were the model's.
    """

    wants_states = True
    beside: Runner | None = None

    def __init__(self, runner: Runner, slots: Slots, hidden: int, most: int) -> None:
        self.runner = runner
        self.guessing = Guessing(len(slots.active), hidden, most)

    def propose(self, slots: Slots, most: Mapping[int, int]) -> Guesses:
        """Guesses for active slots, at most so many for each."""
        known = self.guessing
        known.begin(slots)
        there = [slot for slot in most if most[slot] and known.where[slot] == slots.position[slot]]
        guesses = {slot: [int(known.first[slot])] for slot in there}
        states = {slot: torch.from_numpy(known.states[slot]) for slot in there}
        for depth in range(1, max(most.values(), default=0)):
            running = [slot for slot in sorted(guesses) if most[slot] > depth]
            if not running:
                break
            rows = [
                (slot, int(slots.position[slot]) + depth - 1, np.array(guesses[slot][-1:]))
                for slot in running
            ]
            stacked = torch.stack([states[slot] for slot in running])
            scores, stacked = self.runner.predict(_batch(slots, rows, wanted=True), stacked)
            for place, (slot, token) in enumerate(
                zip(running, _drawn(slots, running, depth, scores, self.runner), strict=True)
            ):
                guesses[slot].append(token)
                states[slot] = stacked[place].cpu()
        return guesses

    def follow(self, slots: Slots, batch: Batch, states: Tensor | None) -> None:
        """Take over what is certain of a step, and guess the token after the newest."""
        assert states is not None
        rows, kept, newest = [], [], []
        for begin, count in batch.stretches:
            slot, first = int(batch.slots[begin]), int(batch.positions[begin])
            certain = slots.known(slot, first + 1)[:count]
            if len(certain) and not _has_ended(slots, slot):
                rows.append((slot, first, certain))
                kept.append(np.arange(begin, begin + len(certain)))
                if slots.active[slot]:
                    newest.append(slot)
        if rows:
            self._take(slots, rows, states[torch.from_numpy(np.concatenate(kept)).to(states.device)], newest)

    def _take(
        self, slots: Slots, rows: list[tuple[int, int, np.ndarray]], states: Tensor, newest: list[int]
    ) -> None:
        batch = _batch(slots, rows, wanted=True)
        ends = {slot: row for (slot, _, _), row in zip(rows, batch.wanted.tolist(), strict=True)}
        wanted = np.array([ends[slot] for slot in newest], np.int64)
        scores, further = self.runner.predict(replace(batch, wanted=wanted), states)
        self.guessing.begin(slots)
        for slot, token in zip(newest, _drawn(slots, newest, 0, scores, self.runner), strict=True):
            self.guessing.note(slot, int(slots.position[slot]), token, further[ends[slot]].cpu().numpy())


def _has_ended(slots: Slots, slot: int) -> bool:
    return not slots.active[slot] and slots.at(slot).is_read


def _batch(slots: Slots, rows: list[tuple[int, int, np.ndarray]], wanted: bool) -> Batch:
    """Rows (slot, first position, tokens); of each slot's last the scores, where they are wanted."""
    counts = [len(tokens) for _, _, tokens in rows]
    return Batch(
        np.concatenate([tokens for _, _, tokens in rows]).astype(np.int64),
        np.concatenate([np.arange(first, first + len(tokens)) for _, first, tokens in rows]),
        np.repeat([slot for slot, _, _ in rows], counts),
        slots.tables,
        np.cumsum(counts) - 1 if wanted else np.empty(0, np.int64),
    )


def _drawn(slots: Slots, chosen: list[int], depth: int, scores: Tensor, runner: Runner) -> list[int]:
    """A token by scores [slots, V] for each, with the number by which the model will draw its own there.

    The more alike the two distributions, the more often both numbers fall on the same token.
    """
    if not chosen:
        return []
    rows: list[Row] = [slots.at(slot).row for slot in chosen]
    places = np.array(chosen)
    last = slots.uniforms.shape[1] - 1
    numbers = torch.from_numpy(slots.uniforms[places, np.minimum(slots.num_sampled[places] + depth, last)])
    dtype = torch.bfloat16 if isinstance(runner, FusedRunner) else torch.float32  # as `Stepper` draws
    tokens: list[int] = row_sampler.draw(rows, scores, numbers.to(scores.device), dtype).tokens.tolist()
    return tokens


def drafter_of(
    speculation: Speculation, runner: Runner, draft: Runner | None, slots: Slots, hidden: int
) -> Drafter:
    """Who guesses for a model with a `runner` and states of a `hidden` size; `draft` is the small model's."""
    if draft is not None:
        return ModelDrafter(draft)
    if speculation.kind == "mtp":
        return MtpDrafter(runner, slots, hidden, speculation.num_tokens)
    return NgramDrafter()
