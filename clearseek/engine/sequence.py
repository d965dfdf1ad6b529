"""One completion on its way: its prompt, what is known of it in the cache, and where it stands."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from clearseek.engine.ending import Ending
from clearseek.engine.reported import PromptReport
from clearseek.engine.request import Alternatives, Completion, Draw, FinishReason, Request
from clearseek.engine.row import Row


@dataclass(eq=False)
class Sequence:
    """Sample `sample` of request number `index`. `tokens` are the prompt's and, after a pause, what was sampled."""

    index: int
    sample: int
    request: Request
    tokens: tuple[int, ...]
    row: Row  # what its sampler knows of it
    num_computed: int = 0  # of `tokens`, in the cache
    num_found: int | None = None  # of its prompt, in the cache when it was first seated; None: it was not yet
    blocks: list[int] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)  # of the full blocks, as far as they are published
    chained: list[bytes] = field(default_factory=list)  # of its full blocks, in the cache or not
    to_fill: list[bytes] = field(default_factory=list)  # of those that it is about to fill
    sampled: list[int] = field(default_factory=list)  # before it was paused; the next two go with it
    log_probs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    leader: "Sequence | None" = None  # another sample of the same prompt, which reads it first
    ending: Ending | None = None  # what may end it, where that is more than the model's ends and its budget
    text: list[str] = field(default_factory=list)  # what `ending` let through
    alternatives: list[Alternatives] = field(
        default_factory=list
    )  # to each token, where its request wants them
    draws: list[Draw] = field(default_factory=list)  # of each token, the same
    report: PromptReport | None = None  # of its prompt, where its request wants one; its siblings' too
    routes: np.ndarray | None = None  # experts of its first tokens, as `Completion.routed_experts`
    outdated: list[tuple[int, int]] = field(
        default_factory=list
    )  # (tokens, version) where other weights came
    is_lost: bool = False  # the model's scores for its next token were no numbers

    @cached_property
    def prompt(self) -> np.ndarray:
        """Its request's, int64."""
        return np.array(self.request.prompt, np.int64)

    @property
    def is_read(self) -> bool:
        """Whether all its tokens but the last are in the cache."""
        return self.num_computed >= len(self.tokens) - 1

    @property
    def error(self) -> str | None:
        """What went wrong with it, and with no other."""
        if self.is_lost:
            return f"the model's scores after {len(self.request.prompt) + len(self.sampled)} tokens are no numbers"
        return None if self.row.error is None else str(self.row.error)

    def drop_lost(self) -> None:
        """A token that was drawn by scores that are no numbers is none."""
        if self.log_probs and math.isnan(self.log_probs[-1]):
            self.is_lost = True
            for values in self.sampled, self.log_probs, self.entropies:
                values.pop()

    def outdate(self, version: int) -> None:
        """What it has by now was drawn by weights of that version or before; what follows comes from others."""
        if len(self.sampled) > (self.outdated[-1][0] if self.outdated else 0):
            self.outdated.append((len(self.sampled), version))

    def _drawn_by(self, last: int) -> tuple[tuple[int, int], ...]:
        """As `Completion.drawn_by`; what is not outdated was drawn by the `last` version."""
        ends = [(end, version) for end, version in self.outdated if end < len(self.sampled)]
        versions = [version for _, version in self.outdated[: len(ends) + 1]] + [last]
        firsts = [0, *(end for end, _ in ends)]
        return () if versions[0] == last else tuple(zip(firsts, versions, strict=False))

    def completion(self, reason: FinishReason, weights_version: int) -> Completion:
        """What there is of it, on its way no more."""
        entropy = math.fsum(self.entropies) / len(self.entropies) if self.entropies else 0.0
        completion = Completion(list(self.sampled), list(self.log_probs), reason, entropy, weights_version)
        completion.error, completion.routed_experts = self.error, self.routes
        completion.blames_request = self.row.error is not None and not self.is_lost
        completion.drawn_by = self._drawn_by(weights_version)
        if self.ending is not None:
            completion.forced = frozenset(self.row.forced_at)
            completion.alternatives, completion.draws = self.alternatives, self.draws
            completion.stopped_by = self.ending.stopped_by
            completion.text = "".join(self.text) if self.ending.has_text else None
        if self.report is not None:
            completion.prompt_log_probs = list(self.report.log_probs)
            completion.prompt_alternatives = list(self.report.alternatives)
        return completion

    @property
    def is_reporting(self) -> bool:
        """Whether something of its prompt is still to be reported."""
        return self.report is not None and not self.report.is_whole

    @property
    def findable(self) -> tuple[int, ...]:
        """The beginning that it may take over from others: what is to be reported it has to read for itself."""
        if self.report is None or self.report.is_whole:
            return self.tokens
        return self.tokens[: self.report.num_known]
