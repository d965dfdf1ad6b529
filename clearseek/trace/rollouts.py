"""The completions that a stage of reinforcement learning wrote, read from its safetensors files without torch."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from clearseek.config.errors import RunError
from clearseek.ledger.lines import file_sha256
from clearseek.tasks.problem import Problem
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.sources import StageReading

# in the order of `train.rollouts`, which a test compares
VERDICTS = ("correct", "wrong", "unparseable", "error")


@dataclass(frozen=True)
class StoredRollouts:
    """One file a step: (step, path, sha256 of the ledger). Completions are numbered over all steps in order."""

    files: tuple[tuple[int, Path, str], ...]

    @property
    def name(self) -> str:
        """What the index of these completions is kept by."""
        return hashlib.sha256("rollouts".join(sha for _, _, sha in self.files).encode()).hexdigest()

    def at(self, number: int) -> tuple[int, str, bool]:
        """Step, verdict, and whether the step learnt from a completion."""
        step, verdict, learnt = self._rows[number]
        return int(step), VERDICTS[verdict], bool(learnt)

    @cached_property
    def _rows(self) -> np.ndarray:
        """int64 [completions, 3]: step, verdict, learnt."""
        parts = []
        for step, path, sha in self.files:
            tensors, _ = _read(path, sha)
            learnt = np.repeat(tensors["learnt"], tensors["samples"])
            parts.append(np.stack([np.full(len(learnt), step), tensors["verdicts"], learnt], axis=1))
        return np.concatenate(parts).astype(np.int64)

    def asked(self) -> Iterator[tuple[int, Problem, int]]:
        """Every problem as it was asked: step, problem, and the tokens of its completions together."""
        for step, path, sha in self.files:
            tensors, problems = _read(path, sha)
            ends = np.cumsum(tensors["samples"])
            lengths = np.concatenate([[0], np.cumsum(tensors["lengths"])])
            for table, end, count in zip(problems, ends, tensors["samples"], strict=True):
                yield step, Problem(**table), int(lengths[end] - lengths[end - count])

    def texts(self, tokenizer: Tokenizer) -> list[str]:
        """Every completion's problem and words."""
        found = []
        for _, path, sha in self.files:
            tensors, problems = _read(path, sha)
            ends = np.cumsum(tensors["lengths"])
            prompts = np.repeat(np.arange(len(problems)), tensors["samples"])
            for prompt, end, length in zip(prompts, ends, tensors["lengths"], strict=True):
                words = tokenizer.decode(tensors["tokens"][end - length : end].tolist())
                found.append(f"{problems[prompt]['prompt']}\n{_plain(words, tokenizer)}")
        return found


def open_rollouts(run_dir: Path, stage: StageReading) -> StoredRollouts | None:
    """A stage's stored completions; None where its run keeps none."""
    files = []
    for record in stage.steps:
        for output in record.get("outputs") or []:
            if str(output["path"]).startswith("rollouts/"):
                files.append((int(record["step"]), run_dir / output["path"], str(output["sha256"])))
    return StoredRollouts(tuple(files)) if files else None


def _plain(words: str, tokenizer: Tokenizer) -> str:
    """Without the marks that part thought from answer and end the completion."""
    for mark in (tokenizer.chat.eos_token, "<think>", "</think>"):
        words = words.replace(mark, "\n") if mark else words
    return words


def _read(path: Path, sha256: str) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    try:
        if file_sha256(path) != sha256:
            raise RunError(f"{path} is not the file that the ledger names: it was changed")
        with safe_open(path, "numpy") as file:
            names = ("learnt", "samples", "lengths", "tokens", "verdicts")
            return {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()["problems"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise RunError(f"{path}: holds no rollout, or was half copied ({error})") from None
