"""Examining a model on problems it has never seen: pass@1 with an interval, by task and by language."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clearseek.config.recipe import Evaluation
from clearseek.engine.request import Sampling
from clearseek.engine.rollout import Group, roll_out
from clearseek.engine.sampler import Sampler
from clearseek.engine.streams import stream_key
from clearseek.eval.intervals import pass_at_k, pass_rate_interval
from clearseek.tasks.problem import Problem
from clearseek.tasks.verify import Verdict
from clearseek.tasks.worker import VerifierPool
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.problem_source import ProblemSource


@dataclass
class Examiner:
    """The same held-out problems and the same random streams for every model that is examined."""

    evaluation: Evaluation
    seed: int
    verifiers: VerifierPool
    roll_out: Callable[..., list[Group]] = roll_out  # a number of processes may share the problems

    def __post_init__(self) -> None:
        source = ProblemSource(self.evaluation.problems, self.seed, "evaluation")
        self.problems: list[Problem] = source.held_out(self.evaluation.count)

    def examine(self, sampler: Sampler, tokenizer: Tokenizer) -> "Examination":
        """Sample and judge every problem."""
        chosen = self.evaluation
        groups = self.roll_out(
            sampler,
            tokenizer,
            self.problems,
            chosen.samples,
            Sampling(chosen.temperature, chosen.top_p, chosen.max_completion_tokens),
            lambda problem: stream_key(self.seed, "evaluation", problem.id),
            self.verifiers,
        )
        return Examination(groups)


@dataclass(frozen=True)
class Examination:
    """Judged groups and what can be said of them."""

    groups: Sequence[Group]

    def record(self) -> dict[str, Any]:
        """The numbers of an `eval` record; problems with nothing but errors are left out of pass@1."""
        items = [item for group in self.groups for item in group.judged]
        judged = [group for group in self.groups if any(i.verdict != Verdict.error for i in group.judged)]
        rates = [group.pass_rate for group in judged]
        consistency = [i.language_consistency for i in items if i.language_consistency is not None]
        low, high = pass_rate_interval(rates)
        samples = len(self.groups[0].judged) if self.groups else 0
        return {
            "pass_at_1": _mean(rates),
            "ci95": [low, high],
            "n": len(judged),
            "samples": samples,
            "pass_at_k": {str(k): _mean([_pass(group, k) for group in judged]) for k in _powers(samples)},
            "by_task": self._by(lambda problem: problem.family),
            "by_language": self._by(lambda problem: problem.language),
            "by_task_language": self._by_task_language(),
            "language_consistency": _mean(consistency) if consistency else None,
            "mean_completion_tokens": _mean([len(item.completion.tokens) for item in items]),
            "truncated": sum(item.is_truncated for item in items),
            "errors": sum(item.verdict == Verdict.error for item in items),
        }

    def _by(self, name: Callable[[Problem], str]) -> dict[str, float]:
        rates: dict[str, list[float]] = defaultdict(list)
        for group in self.groups:
            rates[name(group.problem)].append(group.pass_rate)
        return {key: _mean(values) for key, values in sorted(rates.items())}

    def _by_task_language(self) -> dict[str, dict[str, float]]:
        families = sorted({group.problem.family for group in self.groups})
        return {
            family: Examination([g for g in self.groups if g.problem.family == family])._by(
                lambda p: p.language
            )
            for family in families
        }

    def answers_sha256(self) -> str:
        """SHA-256 (hex) over every completion in order, a line of compact JSON each: problem's id, tokens, verdict."""
        digest = hashlib.sha256()
        for group in self.groups:
            name = group.problem.id
            for item in group.judged:
                line = json.dumps([name, item.completion.tokens, item.verdict.value], separators=(",", ":"))
                digest.update(f"{line}\n".encode())
        return digest.hexdigest()

    @property
    def num_sampled_tokens(self) -> int:
        """Tokens that were generated."""
        return sum(len(item.completion.tokens) for group in self.groups for item in group.judged)


def _pass(group: Group, k: int) -> float:
    right = sum(item.verdict == Verdict.correct for item in group.judged)
    return pass_at_k(len(group.judged), right, k)


def _powers(samples: int) -> list[int]:
    return [2**i for i in range(samples.bit_length()) if 2**i <= samples]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
