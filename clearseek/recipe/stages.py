"""Runs one stage: finds what it starts from, calls its trainer, writes what it leaves, examines it."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.config.recipe import (
    DataSource,
    DistillStage,
    EvalStage,
    PretrainStage,
    Recipe,
    RejectStage,
    RlStage,
    SftStage,
    TokenizerStage,
    TrainStage,
)
from clearseek.engine.streams import stream_key
from clearseek.eval.bits_per_byte import bits_per_byte
from clearseek.eval.examine import Examination, Examiner
from clearseek.ledger.lines import file_sha256
from clearseek.ledger.process import cpu_seconds, peak_memory_bytes
from clearseek.model.checkpoint import load_model, resolve_model, save_model, write_directory
from clearseek.model.decoder import Decoder
from clearseek.model.kept_code import leave_code
from clearseek.model.peft_format import ADAPTER_FILE
from clearseek.recipe.prompts import check_prompts
from clearseek.text.documents import Document, TextDocument
from clearseek.text.kept_files import leave_generation_config
from clearseek.text.tokenizer import Tokenizer
from clearseek.train.adapters import ADAPTER_DIRECTORY, begin_adapter, leave_adapter
from clearseek.train.context import StageContext
from clearseek.train.corpus import kept_samples_path, open_documents
from clearseek.train.flops import num_parameters
from clearseek.train.intake import record_problems
from clearseek.train.parallel import all_sum, gathered, on_first, roll_out_together, world
from clearseek.train.pretrain import pretrainer
from clearseek.train.reject import run_reject
from clearseek.train.rl import PolicyTrainer
from clearseek.train.sft import fine_tuner
from clearseek.train.supervised import SupervisedTrainer
from clearseek.train.tokenize import run_tokenizer

Trainer = SupervisedTrainer | PolicyTrainer
TRAINERS: dict[type, Callable[..., Trainer]] = {
    PretrainStage: pretrainer,
    SftStage: fine_tuner,
    DistillStage: fine_tuner,
    RlStage: PolicyTrainer,
}


@dataclass
class Start:
    """What a stage begins with: a model, its tokenizer, and where both came from."""

    model: Decoder
    tokenizer: Tokenizer
    parents: list[dict[str, str]]
    generation_directory: Path | None = None  # whose generation_config.json still holds
    directory: Path | None = None  # whose code still fits the model


def checkpoint_path(run_dir: Path, stage: str) -> Path:
    """Where a finished stage leaves its model or tokenizer."""
    return run_dir / "checkpoints" / stage


def find_start(recipe: Recipe, run_dir: Path, name: str, device: torch.device) -> Start:
    """The model a stage starts from: new, an earlier stage's, or a directory's; else InputError."""
    stage = recipe.stages[name]
    assert not isinstance(stage, TokenizerStage)
    tokenizer_name = getattr(stage, "tokenizer", None)
    if stage.start in recipe.models:
        directory = find_tokenizer(recipe, run_dir, name, tokenizer_name)
        tokenizer = Tokenizer.load(directory)
        model = new_model(recipe, stage.start, tokenizer, device)
        return Start(model, tokenizer, [_parent(recipe, run_dir, directory, "tokenizer.json")])
    directory = _model_directory(recipe, run_dir, name, stage.start)
    read_from = find_tokenizer(recipe, run_dir, name, tokenizer_name) if tokenizer_name else directory
    tokenizer = Tokenizer.load(read_from)
    own = Tokenizer.load(directory) if (directory / "tokenizer.json").is_file() else tokenizer
    if not tokenizer.has_tokens_of(own):
        raise InputError(
            f"stages.{name}.tokenizer is {tokenizer_name!r}, whose tokens are not those that the model at "
            f"{stage.start!r} was trained with; leave it out to take the model's own"
        )
    is_only_copied = isinstance(stage, RejectStage | EvalStage)  # into an engine
    model = load_model(directory, mapped=is_only_copied).to(device)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise InputError(
            f"stages.{name}: the tokenizer has {tokenizer.vocab_size} tokens, the model at {stage.start!r} "
            f"only {model.config.vocab_size}; give the tokenizer that the model was trained with"
        )
    parents = [_parent(recipe, run_dir, directory, "model*.safetensors")]
    return Start(model, tokenizer, parents, directory if read_from == directory else None, directory)


def new_model(recipe: Recipe, name: str, tokenizer: Tokenizer, device: torch.device) -> Decoder:
    """Random weights for a model of the recipe, addressed by the run's seed and the model's name."""
    config = sized_for(recipe.models[name], tokenizer.vocab_size, name)
    model = Decoder(config)
    model.initialise(torch.Generator().manual_seed(stream_key(recipe.seed, "model", name) % 2**63))
    return model.to(device)


def sized_for(config: ModelConfig, vocab_size: int, name: str) -> ModelConfig:
    """A model's shape with the tokenizer's vocabulary, unless the recipe gave a larger one."""
    if 0 < config.vocab_size < vocab_size:
        raise InputError(
            f"models.{name}.vocab_size ({config.vocab_size}) is smaller than the tokenizer's ({vocab_size}); "
            "leave it out to take the tokenizer's"
        )
    return config.model_copy(update={"vocab_size": config.vocab_size or vocab_size})


def find_tokenizer(recipe: Recipe, run_dir: Path, name: str, wanted: str | None) -> Path:
    """The directory of a stage's tokenizer: a stage, a directory, or the recipe's only tokenizer stage."""
    stages = [stage for stage, table in recipe.stages.items() if table.kind == "tokenizer"]
    if wanted is None and len(stages) != 1:
        raise InputError(
            f"stages.{name}.tokenizer is missing; tokenizer stages: {', '.join(stages) or 'none'}"
        )
    chosen = wanted or stages[0]
    if chosen in recipe.stages:
        return checkpoint_path(run_dir, chosen)
    if not Path(chosen).is_dir():
        raise InputError(f"stages.{name}.tokenizer is {chosen!r}: no stage and no directory of that name")
    return Path(chosen)


def _model_directory(recipe: Recipe, run_dir: Path, name: str, start: str) -> Path:
    if start in recipe.stages:
        return checkpoint_path(run_dir, start)
    if not Path(start).exists():
        known = ", ".join([*recipe.models, *recipe.stages])
        raise InputError(
            f"stages.{name}.start is {start!r}: no model, stage or directory of that name; known: {known}"
        )
    return resolve_model(Path(start))


def _parent(recipe: Recipe, run_dir: Path, directory: Path, pattern: str) -> dict[str, str]:
    """What a stage began with: an earlier stage by name, or a user's directory, and the hash of its files."""
    is_stage = directory.name in recipe.stages and directory == checkpoint_path(run_dir, directory.name)
    hashes = [file_sha256(path) for path in sorted(directory.glob(pattern))]
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return {"stage" if is_stage else "path": directory.name, "sha256": whole}


def _adapter_parent(stage: TrainStage) -> list[dict[str, str]]:
    """The adapter that a stage goes on with, if any, by the hash of its factors."""
    if stage.lora is None or stage.lora.adapter is None:
        return []
    directory = Path(stage.lora.adapter)
    return [{"path": directory.name, "sha256": file_sha256(directory / ADAPTER_FILE)}]


def run_stage(context: StageContext, examiner: Callable[[], Examiner]) -> None:
    """Run one stage from its start, or from its latest resume point, to its `stage_finished` record."""
    stage = context.recipe.stages[context.stage]
    checkpoint = checkpoint_path(context.run_dir, context.stage)
    if isinstance(stage, TokenizerStage):
        _started(context, stage, [], None)
        tokenizer = run_tokenizer(context, stage)
        _write(context, tokenizer.save)
        _finished(context, [checkpoint / "tokenizer.json"], {})
        return
    start = find_start(context.recipe, context.run_dir, context.stage, context.device)
    longest = start.model.config.max_position_embeddings
    on_first(
        "the problems' lengths",
        lambda: check_prompts(context.recipe, context.stage, start.tokenizer, longest),
    )
    if isinstance(stage, TrainStage):
        context.adapter = begin_adapter(context, stage, start.model.config)
        start.parents += _adapter_parent(stage)
    _started(context, stage, start.parents, start.model.config)
    if isinstance(stage, RlStage | RejectStage):
        record_problems(context, stage.problems)
    totals: dict[str, float] = {}
    if isinstance(stage, RejectStage):
        totals = run_reject(context, stage, start.model, start.tokenizer)
        _record_teacher(context, stage, start)
        _finished(context, [kept_samples_path(context.run_dir, context.stage)], totals)
        return
    if isinstance(stage, EvalStage):
        examine_only(context, stage, start)
        _finished(context, [], totals)
        return
    totals = _train(context, stage, start)
    if isinstance(stage, RlStage):
        _record_teacher(context, stage, start)
    if context.adapter is None:
        start.model = gathered(start.model)
    else:
        context.adapter.merge_into(start.model)
    _write(context, lambda directory: _leave(context, stage, start, directory))
    examine_trained(context, stage, start, examiner)
    left = on_first("what the stage left", lambda: _files_left(checkpoint))
    _finished(context, left, totals)


def _train(context: StageContext, stage: TrainStage, start: Start) -> dict[str, float]:
    trainer = TRAINERS[type(stage)](context, stage, start.model, start.tokenizer)
    totals = trainer.run()
    if isinstance(trainer, PolicyTrainer):
        trainer.leave()
    return totals


def _write(context: StageContext, fill: Callable[[Path], None]) -> None:
    """Fill the stage's checkpoint directory; it is whole or not there, and no rank goes on before it is."""

    def write() -> None:
        with write_directory(checkpoint_path(context.run_dir, context.stage)) as directory:
            fill(directory)

    on_first(f"the checkpoint of stage {context.stage}", write)


def _leave(context: StageContext, stage: TrainStage, start: Start, directory: Path) -> None:
    """The model with its tokenizer, and the adapter that it has taken in."""
    _save(start, directory)
    if context.adapter is not None:
        leave_adapter(context.adapter, directory, stage.start)


def _files_left(checkpoint: Path) -> list[Path]:
    """The weights of a checkpoint, in one file or in shards, and its adapter's."""
    adapter = checkpoint / ADAPTER_DIRECTORY / ADAPTER_FILE
    return [*sorted(checkpoint.glob("model*.safetensors")), *([adapter] if adapter.is_file() else [])]


def _save(start: Start, directory: Path) -> None:
    tokenizer = start.tokenizer
    save_model(
        start.model, directory, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id
    )
    tokenizer.save(directory)
    if start.generation_directory is not None:
        leave_generation_config(start.generation_directory, directory)
    if start.directory is not None:
        leave_code(start.directory, directory)


def examine_only(context: StageContext, stage: EvalStage, start: Start) -> None:
    """What a stage does that examines a model more closely."""
    chosen = stage.evaluation or context.recipe.evaluation
    closer = Examiner(chosen, context.recipe.seed, context.verifiers, roll_out_together)
    sampler = context.open_sampler(start.model, start.tokenizer)
    record_examination(context, closer.examine(sampler, start.tokenizer), 0, chosen.probes, {})


def examine_midway(
    context: StageContext, examiner: Examiner, model: Decoder, tokenizer: Tokenizer, step: int
) -> dict[str, Any]:
    """The evaluation after a step of a stage that goes on; its numbers."""
    examination = examiner.examine(context.open_sampler(gathered(model), tokenizer), tokenizer)
    record_examination(context, examination, step, context.recipe.evaluation.probes, {})
    return examination.record()


def examine_trained(
    context: StageContext, stage: TrainStage, start: Start, examiner: Callable[[], Examiner]
) -> None:
    """The evaluation after a stage: held-out problems, and bits per byte where documents were held out."""
    extra = {}
    sources = enumerate(getattr(stage, "data", []))
    held_out = [(index, source) for index, source in sources if source.hold_out_every]
    if held_out:
        extra["bits_per_byte"] = {
            source.path or source.dataset: _bits(context, stage, start, index, source)
            for index, source in held_out
        }
    if stage.evaluate:
        sampler = context.open_sampler(start.model, start.tokenizer)
        examination = examiner().examine(sampler, start.tokenizer)
        record_examination(context, examination, -1, context.recipe.evaluation.probes, extra)
    elif extra:
        context.record("eval", step=-1, **extra)


def _bits(context: StageContext, stage: TrainStage, start: Start, index: int, source: DataSource) -> float:
    held_out: Iterable[Document] | None = context.stored_held_out(index)
    if held_out is None:
        _, held_out = open_documents(context, source).split(source.hold_out_every)
    texts = [document.text for document in held_out if isinstance(document, TextDocument)]
    return bits_per_byte(start.model, start.tokenizer, texts, stage.sequence_length, context.dtype)


def record_examination(
    context: StageContext, examination: Examination, step: int, probes: int, extra: dict[str, Any]
) -> None:
    """Write an evaluation and the probe problems' answers; step −1 stands for the end of the stage."""
    record = examination.record() | {"answers_sha256": examination.answers_sha256()} | extra
    context.record("eval", step=step, **record)
    context.timings.append("eval", context.stage, step, tokens=examination.num_sampled_tokens)
    low, high = record["ci95"]
    context.progress.note(f"{context.stage}: pass@1 {record['pass_at_1']:.1%} ({low:.1%} to {high:.1%})")
    for group in examination.groups[:probes]:
        item = group.judged[0]
        context.samples.append(
            "sample",
            context.stage,
            step=step,
            problem_id=group.problem.id,
            family=group.problem.family,
            language=group.problem.language,
            prompt=group.problem.prompt,
            answer=group.problem.answer,
            completion=item.thought if item.answer is None else f"{item.thought}</think>{item.answer}",
            verdict=item.verdict.value,
        )


def _started(
    context: StageContext, stage: Any, parents: list[dict[str, str]], config: ModelConfig | None
) -> None:
    parameters = None
    if config is not None:
        parameters = {"total": num_parameters(config), "active": num_parameters(config, active=True)}
        if context.adapter is not None:
            parameters["trained"] = context.adapter.num_parameters
    decided = {}
    if isinstance(stage, RlStage) and stage.exact == "auto" and config is not None:
        decided["exact"] = context.is_exact(stage, config)
    context.record(
        "stage_started",
        kind_of_stage=stage.kind,
        config=stage.model_dump(mode="json"),
        parents=parents,
        parameters=parameters,
        samples_lines=len(context.samples),
        **decided,
    )


def _record_teacher(context: StageContext, stage: RejectStage | RlStage, start: Start) -> None:
    """Who wrote the examples that a stage leaves: a model by its hash, how it was sampled, on whose licence."""
    path = kept_samples_path(context.run_dir, context.stage)
    context.record(
        "teacher",
        examples=path.relative_to(context.run_dir).as_posix(),
        rows=on_first("the kept samples", lambda: path.read_bytes().count(b"\n")),
        model=start.parents[0],
        template_sha256=hashlib.sha256(start.tokenizer.chat.source.encode()).hexdigest(),
        while_training=isinstance(
            stage, RlStage
        ),  # then the model is what it was at each step, from this one on
        sampling={
            "temperature": stage.temperature,
            "top_p": 1.0,
            "max_completion_tokens": stage.max_completion_tokens,
            "samples": stage.group_size if isinstance(stage, RlStage) else stage.samples,
        },
        min_language_consistency=getattr(stage, "min_language_consistency", 0.0),
        joined=list(getattr(stage, "include_retired", [])),
        licence=getattr(stage, "licence", None),
    )


def _finished(context: StageContext, files: list[Path], totals: dict[str, float]) -> None:
    """The `stage_finished` record with the hash of every file left, by its path in the run directory."""
    outputs = [
        {"name": path.name, "path": path.relative_to(context.run_dir).as_posix(), "sha256": file_sha256(path)}
        for path in files
    ]
    context.record("stage_finished", outputs=outputs, **totals)
    context.ledger.sync()
    context.timings.finish_stage(context.stage, **totals, **_cost_of_all_ranks(context))


def _cost_of_all_ranks(context: StageContext) -> dict[str, float]:
    """Processor time of the stage and memory, of all processes together; alone the clock file measures both."""
    if world().size == 1:
        return {}
    spent = cpu_seconds() - context.cpu_seconds_before
    measured = torch.tensor([spent, peak_memory_bytes() or 0], dtype=torch.float64)
    seconds, memory = all_sum("what the stage cost the other ranks", measured).tolist()
    return {"cpu_seconds": seconds, "peak_memory_bytes": int(memory)}
