"""Completions written down before they are used, for an engine that would not give the same ones again.

A server's samples depend on what it batches together. A stage that was killed and goes on finds here what it was
answered before, by the weights and the request, so that it recomputes the same steps to the same bytes.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from clearseek.config.errors import RunError
from clearseek.engine.request import Completion, Request
from clearseek.engine.streams import stream_key
from clearseek.ledger.append import LineFile


class Answered:
    """The answers of one process to requests of one stage: in `folder` a file for each version of the weights."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder, self.rank = folder, rank

    def open(self, weights: str) -> "AnsweredBy":
        """What the weights of that name have answered; to be closed."""
        return AnsweredBy(self.folder / f"{weights[:32]}-{self.rank}.jsonl")

    def forget_before(self, seconds: float) -> None:
        """Remove what was last written before a time of the file system's clock."""
        for path in self.folder.glob(f"*-{self.rank}.jsonl"):
            if path.stat().st_mtime < seconds:
                path.unlink()


class AnsweredBy(LineFile):
    """One file of them, a request a line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._known = dict(map(self._read, self.lines))
        except BaseException:
            self.close()
            raise

    def __contains__(self, request: Request) -> bool:
        """Whether a request was answered before."""
        return _address(request) in self._known

    def __getitem__(self, request: Request) -> list[Completion]:
        """The samples of a request that was answered before."""
        return self._known[_address(request)]

    def add(self, requests: Sequence[Request], answers: Sequence[list[Completion]]) -> None:
        """Write answers down; they are on the disk when this returns."""
        for request, completions in zip(requests, answers, strict=True):
            self._known[_address(request)] = completions
            samples = [[one.tokens, one.log_probs, one.finish_reason, one.entropy] for one in completions]
            self.write(json.dumps([_address(request), samples]).encode() + b"\n")
        self.sync()

    def _read(self, line: bytes) -> tuple[int, list[Completion]]:
        try:
            address, samples = json.loads(line)
            return address, [Completion(*sample) for sample in samples]
        except (ValueError, TypeError) as error:
            raise RunError(f"{os.fspath(self.path)}: not what was answered ({error}); remove it") from error


def _address(request: Request) -> int:
    sampling = request.sampling
    settings = sampling.temperature, sampling.top_p, sampling.max_tokens, request.num_samples
    return stream_key(request.key, *map(str, settings), *request.prompt)
