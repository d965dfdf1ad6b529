"""What an answer owes to a document, a source or a problem: the way to the model computed again without it.

The answer's probability is told by the run's own model and by the one that comes out without; docs/ledger.md says what
without means. Nothing is written but into a temporary folder, or into one that the caller names.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from clearseek.config.errors import InputError, RunError
from clearseek.config.progress import Progress, SilentProgress
from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.ledger.lines import file_sha256
from clearseek.model.checkpoint import load_model
from clearseek.model.decoder import Decoder
from clearseek.model.log_probs import target_log_probs
from clearseek.recipe.control import find_other
from clearseek.recipe.counterfactual import Again, Counterfactual, check_alone, keep_changed
from clearseek.recipe.recorded import RecordedRun
from clearseek.recipe.replay import session_choice
from clearseek.recipe.stages import checkpoint_path
from clearseek.recipe.without import Target, Without, computed_again, seconds_of
from clearseek.recipe.without_context import Seen
from clearseek.text.tokenizer import Tokenizer

RESULT = "why.json"
_LONGEST_ANSWER = 128
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class Weighed:
    """An answer by one model: log-probability in nats of every token and of all together, and its own likeliest."""

    token_log_probs: list[float]
    log_prob: float
    log_prob_per_token: float
    likeliest: str


@dataclass(frozen=True)
class Compared:
    """How an answer is weighed by the run's model and by another; `times`: how often as likely by the other.

    `times` is None where it would be beyond what a float holds; `change` has its logarithm.
    """

    without: Weighed
    change: float
    change_per_token: float
    times: float | None
    is_same: bool


@dataclass(frozen=True)
class Control:
    """The same without something else of the same size, or with another seed."""

    told: str
    compared: Compared


@dataclass(frozen=True)
class Change:
    """What was left out, where it was seen, which stages were computed again, and the answer with and without."""

    run: str
    stage: str
    left_out: str
    seen: list[Seen]
    again: list[Again]
    prompt: str
    answer: str
    tokens: int
    with_it: Weighed
    compared: Compared
    control: Control | None
    kept: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Asked:
    """A prompt and an answer as tokens, and what weighs them."""

    tokenizer: Tokenizer
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype

    def weigh(self, model: Decoder) -> Weighed:
        """The answer by a model."""
        each = _log_probs(model, self.prompt, self.answer, self.dtype)
        likeliest = self.tokenizer.decode(_likeliest(model, self.tokenizer, self.prompt, self.dtype))
        return Weighed(each, math.fsum(each), math.fsum(each) / len(each), likeliest)

    def read(self, directory: Path) -> Weighed:
        """The answer by the model in a directory."""
        return self.weigh(load_model(directory).to(self.device))


def why(
    run: RecordedRun,
    prompt: str,
    without: Without,
    target: Target,
    answer: str | None = None,
    is_plain: bool = False,
    with_control: bool = False,
    keep: Path | None = None,
    progress: Progress | None = None,
) -> Change:
    """How likely an answer is to a prompt, by a run's model as it is and as it is computed without something.

    `answer` is the whole completion, thought and all; default: the likeliest that the model as it is gives. With
    `is_plain` the prompt is a text to go on with, not a question in the chat format. `keep` is a folder that is made
    for what was computed. InputError for a prompt or answer that doesn't fit the model, or a `keep` that is there.
    """
    told = progress or SilentProgress()
    _check_keep(run, keep)
    for name in (target.stage, *computed_again(run.recipe, without, target)):
        check_alone(run.stage(name))
    directory = _own_model(run, target.stage)
    model = load_model(directory)
    asked = _ask(run, target.stage, model, prompt, answer, is_plain)
    with_it = asked.weigh(model.to(asked.device))
    del model
    told.note(_announced(run, without, target, with_control))
    with _folder(keep) as work:
        found, compared = _compared(run, without, target, work, told, asked, with_it)
        control = None
        if with_control:
            other = find_other(found)
            told.note(f"control: {other.told}")
            with _folder(None) as beside:
                seed = run.recipe.seed + 1 if other.without is None else None
                _, held = _compared(run, other.without or without, target, beside, told, asked, with_it, seed)
            control = Control(other.told, held)
        change = Change(
            run=str(run.run_dir),
            stage=target.stage,
            left_out=_left_out(without),
            seen=found.seen,
            again=found.again,
            prompt=prompt,
            answer=asked.tokenizer.decode(list(asked.answer)),
            tokens=len(asked.answer),
            with_it=with_it,
            compared=compared,
            control=control,
            kept=None if keep is None else str(keep),
        )
        keep_changed(work)
        (work / RESULT).write_text(
            json.dumps(change.to_dict(), ensure_ascii=False, indent=2), encoding="utf-8"
        )
    return change


def _compared(
    run: RecordedRun,
    without: Without,
    target: Target,
    work: Path,
    progress: Progress,
    asked: Asked,
    with_it: Weighed,
    seed: int | None = None,
) -> tuple[Counterfactual, Compared]:
    found = Counterfactual(run, without, target, work, progress, seed)
    directory = found.compute()
    weighed = with_it if directory is None else asked.read(directory)
    change = weighed.log_prob - with_it.log_prob
    return found, Compared(
        without=weighed,
        change=change,
        change_per_token=change / len(asked.answer),
        times=math.exp(change) if abs(change) < _LARGEST_EXPONENT else None,
        is_same=directory is None,
    )


def _announced(run: RecordedRun, without: Without, target: Target, with_control: bool) -> str:
    """What is about to be computed, and how long it took in the run."""
    again = computed_again(run.recipe, without, target)
    seconds = seconds_of(run.run_dir, again)
    took = "not timed in the run" if seconds is None else f"{seconds:.0f} s in the run, evaluations included"
    twice = "; the control takes as long once more" if with_control else ""
    return f"to compute again at most: {', '.join(again)} ({took}){twice}"


def _left_out(without: Without) -> str:
    if without.only is None:
        return without.told
    (name,) = without.only
    return f"{'problem' if without.places[0].source is None else 'document'} {name}"


def _own_model(run: RecordedRun, stage: str) -> Path:
    """The run's own model of a stage, held to the ledger."""
    finished = run.stage(stage).finished or {}
    for file in finished.get("outputs") or []:
        path = run.run_dir / file["path"]
        if not path.is_file() or file_sha256(path) != file["sha256"]:
            raise RunError(
                f"{path} is not the file that line {finished['line']} of the ledger names: it was changed, or the run "
                "was half copied"
            )
    return checkpoint_path(run.run_dir, stage)


def _ask(
    run: RecordedRun, stage: str, model: Decoder, prompt: str, answer: str | None, is_plain: bool
) -> Asked:
    choice = session_choice(run, run.stage(stage))
    tokenizer = Tokenizer.load(checkpoint_path(run.run_dir, stage))
    ids = (
        tokenizer.encode(prompt) if is_plain else tokenizer.encode_chat([{"role": "user", "content": prompt}])
    )
    room = model.config.max_position_embeddings
    if not ids:
        raise InputError("an empty prompt has no answer: give some text")
    if len(ids) >= room:
        raise InputError(
            f"the prompt has {len(ids):,} tokens, and the model of stage {stage} reads {room:,} with its answer: "
            "shorten it"
        )
    if answer is None:
        told = _likeliest(model.to(choice.device), tokenizer, ids, choice.dtype)
    else:
        told = tokenizer.encode(answer)
    if not told:
        raise InputError("an empty answer has no probability: give some text with --answer")
    if len(ids) + len(told) > room:
        raise InputError(
            f"prompt and answer have {len(ids) + len(told):,} tokens, and the model of stage {stage} reads {room:,}: "
            "shorten one"
        )
    return Asked(tokenizer, tuple(ids), tuple(told), choice.device, choice.dtype)


def _likeliest(model: Decoder, tokenizer: Tokenizer, prompt: Sequence[int], dtype: torch.dtype) -> list[int]:
    engine = Engine(model, tokenizer.stop_ids, dtype)
    most = min(_LONGEST_ANSWER, model.config.max_position_embeddings - len(prompt))
    request = Request(tuple(prompt), 0, 1, Sampling(temperature=0.0, max_tokens=most))
    return list(engine.generate([request])[0][0].tokens)


@torch.no_grad()
def _log_probs(
    model: Decoder, prompt: Sequence[int], answer: Sequence[int], dtype: torch.dtype
) -> list[float]:
    """Of each of the answer's tokens, in nats."""
    model.training = False
    row = torch.tensor([[*prompt, *answer]], device=model.embedding.weight.device)
    states = model(row[:, :-1], torch.ones_like(row[:, :-1]), dtype, 0).states
    found = target_log_probs(states[0, len(prompt) - 1 :], model.head_weight, row[0, len(prompt) :])
    return [float(one) for one in found.double()]


def _check_keep(run: RecordedRun, keep: Path | None) -> None:
    if keep is None:
        return
    if keep.exists():
        raise InputError(f"{keep} is there already: --keep makes a folder of its own, so give another name")
    if run.run_dir.resolve() in keep.resolve().parents:
        raise InputError(f"{keep} is inside the run, which stays as it is: give a folder beside it")


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A folder to compute in: it gets the name `keep` when all went well, else nothing is left of it."""
    try:
        if keep is not None:
            keep.parent.mkdir(parents=True, exist_ok=True)
        where = None if keep is None else keep.parent
        made = Path(tempfile.mkdtemp(prefix=".why-" if keep else "clearseek-why-", dir=where))
    except OSError as error:
        raise RunError(f"no folder can be made to compute in: {error}") from None
    try:
        yield made
        if keep is not None:
            made.chmod(0o755)
            made.rename(keep)
    finally:
        shutil.rmtree(made, ignore_errors=True)
