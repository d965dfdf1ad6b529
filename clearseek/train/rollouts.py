"""What a step of reinforcement learning had sampled, as a safetensors file: data, from which its update is replayed.

Groups stand in the order they were sampled. One number a group: `learnt` (1: the update learns from it), `samples`,
`prompt_lengths`.
One a completion: `lengths`, `verdicts` and `finishes` (numbers into this module's lists), `entropies`,
`consistencies` (NaN: its thought holds no words). Tokens and log-probabilities of all lie end to end in `prompts`,
`tokens`, `log_probs`. The problems, as JSON, are in the file's metadata under `problems`.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from clearseek.config.errors import RunError
from clearseek.engine.request import Completion, FinishReason
from clearseek.engine.rollout import Group, Judged
from clearseek.ledger.lines import file_sha256
from clearseek.model.stored import load_tensors, save_tensors
from clearseek.tasks.problem import Problem
from clearseek.tasks.verify import Verdict
from clearseek.text.tokenizer import Tokenizer

_VERDICTS = tuple(Verdict)
_FINISHES: tuple[FinishReason, ...] = get_args(FinishReason)


@dataclass(frozen=True)
class Rollout:
    """Sampled groups in order, and of each whether the step learns from it."""

    groups: list[Group]
    learnt: list[bool]

    def kept(self) -> list[Group]:
        """The groups to learn from."""
        return [group for group, learns in zip(self.groups, self.learnt, strict=True) if learns]

    def dropped(self) -> list[Group]:
        """The groups that told nothing."""
        return [group for group, learns in zip(self.groups, self.learnt, strict=True) if not learns]


def write_rollout(path: Path, rollout: Rollout) -> str:
    """Write beside and rename; returns the file's sha256. RunError where the disk refuses."""
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(partial, _tensors(rollout), {"problems": _problems(rollout.groups)})
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # the ledger may not outlive what it names
        digest = file_sha256(partial)
        os.replace(partial, path)
    except OSError as error:
        raise RunError(
            f"{path} can't be written ({error.strerror or error}); make room and run the same command again"
        ) from error
    return digest


def read_rollout(path: Path, tokenizer: Tokenizer) -> Rollout:
    """What `write_rollout` was given; thoughts and answers are decoded again. RunError for a file that is not one."""
    tensors, metadata = load_tensors(path)
    try:
        problems = [Problem(**table) for table in json.loads(metadata["problems"])]
        values = {name: tensor.tolist() for name, tensor in tensors.items()}
        prompts = _cut(values["prompts"], values["prompt_lengths"])
        items = iter(_completions(values, tokenizer))
        groups = [
            Group(problem, tuple(prompt), tuple(next(items) for _ in range(count)))
            for problem, prompt, count in zip(problems, prompts, values["samples"], strict=True)
        ]
        return Rollout(groups, [bool(value) for value in values["learnt"]])
    except (KeyError, ValueError, TypeError, IndexError, StopIteration) as error:
        raise RunError(
            f"{path}: holds no rollout of this clearseek ({error!r}); restore the run from a copy"
        ) from None


def _tensors(rollout: Rollout) -> dict[str, Tensor]:
    groups = rollout.groups
    items = [item for group in groups for item in group.judged]
    done = [item.completion for item in items]
    columns = {
        "learnt": np.array(rollout.learnt, np.uint8),
        "samples": np.array([len(group.judged) for group in groups], np.int32),
        "prompt_lengths": np.array([len(group.prompt) for group in groups], np.int32),
        "prompts": _joined([group.prompt for group in groups], np.int32),
        "lengths": np.array([len(one.tokens) for one in done], np.int32),
        "tokens": _joined([one.tokens for one in done], np.int32),
        "log_probs": _joined([one.log_probs for one in done], np.float32),
        "finishes": np.array([_FINISHES.index(one.finish_reason) for one in done], np.uint8),
        "entropies": np.array([one.entropy for one in done], np.float64),
        "verdicts": np.array([_VERDICTS.index(item.verdict) for item in items], np.uint8),
        "consistencies": np.array(
            [np.nan if item.language_consistency is None else item.language_consistency for item in items],
            np.float64,
        ),
    }
    return {name: torch.from_numpy(column) for name, column in columns.items()}


def _joined(parts: Sequence[Sequence[float]], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *(np.asarray(part, dtype) for part in parts)]).astype(dtype)


def _problems(groups: Sequence[Group]) -> str:
    return json.dumps([asdict(group.problem) for group in groups], ensure_ascii=False, separators=(",", ":"))


def _completions(values: dict[str, list], tokenizer: Tokenizer) -> list[Judged]:
    tokens, log_probs = (_cut(values[name], values["lengths"]) for name in ("tokens", "log_probs"))
    columns = (values[name] for name in ("finishes", "entropies", "verdicts", "consistencies"))
    return [
        _judged(
            tokenizer, Completion(ids, scores, _FINISHES[finish], entropy), _VERDICTS[verdict], consistency
        )
        for ids, scores, finish, entropy, verdict, consistency in zip(
            tokens, log_probs, *columns, strict=True
        )
    ]


def _judged(tokenizer: Tokenizer, completion: Completion, verdict: Verdict, consistency: float) -> Judged:
    thought, answer = tokenizer.chat.split_completion(tokenizer.decode(completion.said))
    return Judged(completion, thought, answer, verdict, None if np.isnan(consistency) else consistency)


def _cut(flat: list, lengths: list[int]) -> list[list]:
    ends = np.cumsum(lengths).tolist()
    return [flat[end - length : end] for end, length in zip(ends, lengths, strict=True)]
