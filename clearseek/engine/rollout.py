"""Problems in, judged completions out: what reinforcement learning and rejection sampling both do first.

A group is the completions of one problem; errors travel as verdicts, never as exceptions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clearseek.engine.request import Completion, Request, Sampling
from clearseek.engine.sampler import Sampler
from clearseek.tasks.language import language_consistency
from clearseek.tasks.problem import Problem
from clearseek.tasks.verify import Verdict
from clearseek.tasks.worker import VerifierPool
from clearseek.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Judged:
    """One completion as text, with its verdict and how much of its thought is in the problem's language."""

    completion: Completion
    thought: str
    answer: str | None  # None: the thought never closed
    verdict: Verdict
    language_consistency: float | None  # None: the thought holds no words

    @property
    def is_truncated(self) -> bool:
        """Whether the budget ended it."""
        return self.completion.finish_reason == "length"


@dataclass(frozen=True)
class Group:
    """One problem's prompt as tokens and its judged completions."""

    problem: Problem
    prompt: tuple[int, ...]
    judged: tuple[Judged, ...]

    @property
    def pass_rate(self) -> float:
        """Share of right completions among those that could be judged."""
        counted = [item.verdict for item in self.judged if item.verdict != Verdict.error]
        return sum(verdict == Verdict.correct for verdict in counted) / max(len(counted), 1)


def roll_out(
    sampler: Sampler,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    num_samples: int,
    sampling: Sampling,
    key: Callable[[Problem], int],
    verifiers: VerifierPool,
) -> list[Group]:
    """Sample `num_samples` completions of every problem and judge them."""
    prompts = [encode_problem(tokenizer, problem) for problem in problems]
    requests = [
        Request(prompt, key(problem), num_samples, sampling)
        for prompt, problem in zip(prompts, problems, strict=True)
    ]
    completions = sampler.generate(requests)
    flat = [(problem, item) for problem, group in zip(problems, completions, strict=True) for item in group]
    judged = judge(tokenizer, flat, verifiers)
    return [
        Group(problem, prompt, tuple(judged[i * num_samples : (i + 1) * num_samples]))
        for i, (problem, prompt) in enumerate(zip(problems, prompts, strict=True))
    ]


def encode_problem(tokenizer: Tokenizer, problem: Problem) -> tuple[int, ...]:
    """A problem's prompt in the model's chat format."""
    return tuple(tokenizer.encode_chat([{"role": "user", "content": problem.prompt}]))


def judge(
    tokenizer: Tokenizer, items: Sequence[tuple[Problem, Completion]], verifiers: VerifierPool
) -> list[Judged]:
    """Decode and verify; what the budget cut short, or never closed its thought, is unparseable unasked.

    What the engine could not finish is an error, as what a verifier could not judge.
    """
    parts = [tokenizer.chat.split_completion(tokenizer.decode(item.said)) for _, item in items]
    asked = [
        i for i, (_, answer) in enumerate(parts) if answer is not None and items[i][1].finish_reason == "stop"
    ]
    verdicts = [
        Verdict.unparseable if item.finish_reason in ("stop", "length") else Verdict.error
        for _, item in items
    ]
    answers = verifiers.verify_many(
        [(items[i][0].verifier, parts[i][1] or "", items[i][0].answer) for i in asked]
    )
    for i, verdict in zip(asked, answers, strict=True):
        verdicts[i] = verdict
    return [
        Judged(item, thought, answer, verdict, language_consistency(thought, problem.language))
        for (problem, item), (thought, answer), verdict in zip(items, parts, verdicts, strict=True)
    ]


def rewards(groups: Sequence[Group], language_weight: float) -> np.ndarray:
    """Rewards [groups, completions]: 1 for right, plus the weighted language consistency; NaN for an error.

    A thought without words is consistent: there is nothing in it to be in another language.
    """
    values = np.zeros((len(groups), len(groups[0].judged) if groups else 0))
    for i, group in enumerate(groups):
        for j, item in enumerate(group.judged):
            consistency = 1.0 if item.language_consistency is None else item.language_consistency
            values[i, j] = float(item.verdict == Verdict.correct) + language_weight * consistency
            if item.verdict == Verdict.error:
                values[i, j] = np.nan
    return values


def describe(groups: Sequence[Group]) -> dict[str, float]:
    """What a ledger line says of sampled groups: verdicts, lengths, language, entropy."""
    items = [item for group in groups for item in group.judged]
    count = max(len(items), 1)
    consistency = [item.language_consistency for item in items if item.language_consistency is not None]
    numbers: dict[str, float] = {
        verdict.value: sum(item.verdict == verdict for item in items) for verdict in Verdict
    }
    return numbers | {
        "truncated": sum(item.is_truncated for item in items),
        "groups": len(groups),
        "groups_all_correct": sum(group.pass_rate == 1 for group in groups),
        "groups_all_wrong": sum(group.pass_rate == 0 for group in groups),
        "completion_tokens": sum(len(item.completion.tokens) for item in items) / count,
        "entropy": sum(item.completion.entropy for item in items) / count,
        "language_consistency": sum(consistency) / max(len(consistency), 1),
    }
