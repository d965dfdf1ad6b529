"""What weight formats cost a model: perplexity, distance from fp32 and solved problems, beside size and speed."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clearseek.config.errors import InputError
from clearseek.config.progress import Progress, SilentProgress
from clearseek.config.recipe import Evaluation
from clearseek.engine.bench.speed import stream_rate
from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.engine import Engine
from clearseek.engine.formats import Format
from clearseek.engine.fused_runner import FusedRunner
from clearseek.engine.mixed_formats import Formats, read_formats
from clearseek.engine.request import Sampling
from clearseek.engine.rollout import Group
from clearseek.engine.runner import Batch
from clearseek.eval.bits_per_byte import windows_of
from clearseek.eval.command import answers, ask, chosen_problems, recipe_of
from clearseek.eval.examine import Examination
from clearseek.model.decoder import Decoder
from clearseek.model.log_probs import log_probs_from_logits
from clearseek.model.resolve import resolve_source
from clearseek.model.source import load_source, tokenizer_directory
from clearseek.tasks.problem import Problem
from clearseek.text.tokenizer import Tokenizer

_WINDOW = 512  # predictions, of which the later half counts where there is one before
_ROWS = 128  # scores at once
_LONGEST_ANSWER = 256  # tokens, where no recipe says
_EXACT = Format("float32")
Window = tuple[np.ndarray, int]  # token ids, and the first prediction that counts


@dataclass(frozen=True)
class _Bench:
    """What every format is asked: the same text and the same problems."""

    model: Decoder
    tokenizer: Tokenizer
    problems: Sequence[Problem]
    evaluation: Evaluation
    seed: int
    progress: Progress


def bench_formats(
    model: Path,
    formats: Sequence[str] = ("float32", "bfloat16", "int8", "int4"),
    data: Path | None = None,
    tasks: Sequence[str] | None = None,
    problems: int = 100,
    text_tokens: int = 8192,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """A row per format, on the CPU: see `_row`. The text is `data`, else fp32's own answers to the problems.

    Problems are answered greedily, so that formats differ by their numbers alone. InputError for what can't be read.
    """
    forms = {text: read_formats(text) for text in formats}
    directory = resolve_source(Path(model))
    with tokenizer_directory(directory) as files:
        tokenizer = Tokenizer.load(files)
    recipe = recipe_of(Path(model), directory)
    evaluation = recipe.evaluation if recipe else Evaluation(max_completion_tokens=_LONGEST_ANSWER)
    asked = ask(chosen_problems(tasks, recipe), problems, seed)
    text = None if data is None else _windows(tokenizer, data, text_tokens)
    decoder = load_source(directory)
    tokenizer.require_room(decoder.config.vocab_size, directory)
    bench = _Bench(decoder, tokenizer, asked, evaluation, seed, progress or SilentProgress())
    exact = _answered(bench, _EXACT)
    scored = text or _answer_windows(exact.groups, text_tokens)
    rows = {name: _row(bench, form, scored, exact) for name, form in forms.items()}
    return {
        "model": str(model), "text": str(data or "fp32's own answers"), "problems": len(asked),
        "parameters": sum(weight.numel() for weight in decoder.parameters()),
        "text_tokens": sum(len(ids) - 1 - first for ids, first in scored), "formats": rows,
    }  # fmt: skip


@dataclass(frozen=True)
class _Answered:
    groups: list[Group]
    seconds: float
    num_bytes: int
    one_stream: float


def _row(bench: _Bench, form: Format | Formats, text: Sequence[Window], exact: _Answered) -> dict[str, Any]:
    """Bytes of the weights, tokens/s of one stream and how many times `exact`'s, fp32's, that is; perplexity, mean
    KL(fp32 ‖ format) in nats, pass@1; or `why`.
    """
    try:
        answered = exact if form == _EXACT else _answered(bench, form)
    except InputError as error:
        return {"why": str(error)}
    record = Examination(answered.groups).record()
    nats, divergence = _distance(bench.model, form, text)
    return {
        "bytes": answered.num_bytes,
        "tokens_per_second": answered.one_stream,
        "times_float32": answered.one_stream / exact.one_stream,
        "perplexity": math.exp(nats),
        "kl": divergence,
        "pass_at_1": record["pass_at_1"],
        "ci95": record["ci95"],
        "answer_seconds": answered.seconds,
    }


def _answered(bench: _Bench, form: Format | Formats) -> _Answered:
    """The problems' judged answers, greedily; InputError where the model can't be kept so."""
    engine = Engine(bench.model, bench.tokenizer.stop_ids, _dtype(form), copies=False, form=form)
    sampling = Sampling(0.0, max_tokens=bench.evaluation.max_completion_tokens)
    started = time.monotonic()
    groups = answers(engine, bench.tokenizer, bench.problems, 1, sampling, bench.seed, bench.progress)
    seconds = time.monotonic() - started
    return _Answered(groups, seconds, _num_bytes(bench.model, engine), stream_rate(engine)[1])


def _num_bytes(model: Decoder, engine: Engine) -> int:
    """Of the matrices as they are kept; without kernels all weights in the engine's dtype."""
    if isinstance(engine.runner, FusedRunner):
        return engine.runner.layout.num_bytes
    return sum(parameter.numel() for parameter in model.parameters()) * engine.dtype.itemsize


def _dtype(form: Format | Formats) -> torch.dtype:
    return torch.float32 if form.name == "float32" else torch.bfloat16


@torch.no_grad()
def _distance(model: Decoder, form: Format | Formats, text: Sequence[Window]) -> tuple[float, float]:
    """Mean −log p of the text's tokens in a format, and mean KL of its distributions from fp32's, in nats."""
    blocks = -(-max(len(ids) for ids, _ in text) // BLOCK_TOKENS)
    ours, exact = (_scorer(model, kept, blocks) for kept in (form, _EXACT))
    nats = divergence = 0.0
    count = 0
    for ids, first in text:
        for begin in range(0, len(ids) - 1, _ROWS):
            end = min(begin + _ROWS, len(ids) - 1)
            log_probs, wanted = (
                log_probs_from_logits(runner.step_with_states(_batch(ids, begin, end, blocks))[0], 1.0)
                for runner in (ours, exact)
            )
            kept = slice(max(first - begin, 0), None)
            targets = torch.from_numpy(ids[begin + 1 : end + 1].astype(np.int64))[kept, None]
            nats -= float(log_probs[kept].gather(1, targets).double().sum())
            divergence += float((wanted[kept].exp() * (wanted[kept] - log_probs[kept])).double().sum())
            count += len(targets)
    return nats / count, divergence / count


def _scorer(model: Decoder, form: Format | Formats, blocks: int) -> Any:
    """A runner of its own, that reads one text after the other into the same blocks."""
    engine = Engine(model, (), _dtype(form), copies=False, form=form)
    return engine.new_runner(blocks)


def _batch(ids: np.ndarray, begin: int, end: int, blocks: int) -> Batch:
    count = end - begin
    return Batch(
        ids[begin:end].astype(np.int64), np.arange(begin, end), np.zeros(count, np.int64),
        np.arange(blocks, dtype=np.int32)[None], np.arange(count),
    )  # fmt: skip


def _windows(tokenizer: Tokenizer, path: Path, text_tokens: int) -> list[Window]:
    """The beginning of a file, in windows that overlap by half."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8") from None
    windows = [window for window in windows_of(tokenizer, text, _WINDOW) if len(window[0]) > 1]
    if not windows:
        raise InputError(f"{path} is empty; give a file of text")
    return _no_more_than(windows, text_tokens)


def _answer_windows(groups: Sequence[Group], text_tokens: int) -> list[Window]:
    """Prompts with what was answered, which alone counts."""
    whole = [
        (np.array([*group.prompt, *group.judged[0].completion.tokens]), len(group.prompt) - 1)
        for group in groups
    ]
    return _no_more_than(whole, text_tokens)


def _no_more_than(windows: Sequence[Window], text_tokens: int) -> list[Window]:
    """So many of them that `text_tokens` predictions count, and one at least."""
    counts = np.cumsum([len(ids) - 1 - first for ids, first in windows])
    return list(windows[: max(int((counts <= text_tokens).sum()), 1)])
