"""What each stage of a recipe has to compute: its model's shape, its tokens, its floating-point operations.

Nothing here runs anything or needs the data: what can't be known before is taken from the sizes that the
recipe gives, always on the large side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.config.recipe import (
    DataSource,
    DistillStage,
    EvalStage,
    Evaluation,
    PretrainStage,
    Recipe,
    RejectStage,
    RlStage,
    SftStage,
    TokenizerStage,
    TrainStage,
)
from clearseek.model.checkpoint import load_config, resolve_model
from clearseek.recipe.stages import sized_for
from clearseek.text.tokenizer import Tokenizer
from clearseek.train.adapters import trained_parameters
from clearseek.train.flops import forward_flops, num_parameters, training_flops
from clearseek.train.supervised import steps_for_tokens

BYTES_PER_TOKEN = 3  # of documents: 2.0 to 4.2 with vocabularies of 1,024 to 16,384 in three languages
EXAMPLE_SHARE = 1 / 3  # of a row that a generated example fills, as r1-mini's do
PROMPT_TOKENS = 64  # of a problem, where no row says how much it may take


@dataclass(frozen=True)
class Work:
    """One stage's work. Sampled completions count at their full budget."""

    name: str
    kind: str
    config: ModelConfig | None = None
    steps: float = 0
    trained_tokens: float = 0
    sampled_tokens: float = 0
    training_flops: float = 0
    sampling_flops: float = 0
    resident_tokens: float = 0  # of the data that the stage holds in memory
    notes: list[str] = field(default_factory=list)
    adapter_parameters: int = 0  # of a low-rank adapter, which learns in the model's stead
    adapted_parameters: int = 0  # of the weights that it adapts

    @property
    def total_parameters(self) -> int:
        """All weights, without multi-token modules."""
        return num_parameters(self.config) if self.config else 0

    @property
    def num_trained(self) -> int:
        """Weights that learn: an adapter's alone, all with multi-token modules, or none where nothing is trained."""
        if self.config is None or not self.trained_tokens:
            return 0
        return self.adapter_parameters or num_parameters(self.config, with_mtp=True)

    @property
    def active_parameters(self) -> int:
        """Weights that one token passes: of an embedding of its own it reads one row only."""
        if self.config is None:
            return 0
        active = num_parameters(self.config, active=True)
        embedding = self.config.vocab_size * self.config.hidden_size
        return active if self.config.tie_word_embeddings else active - embedding


def work_of(recipe: Recipe, name: str) -> Work:
    """What a stage has to compute; InputError where its start, its tokenizer or its adapter's targets are not there."""
    work = _work_of(recipe, name)
    lora = getattr(recipe.stages[name], "lora", None)
    if lora is None or work.config is None:
        return work
    trained, adapted = trained_parameters(work.config, lora, f"stages.{name}.lora")
    return replace(work, adapter_parameters=trained, adapted_parameters=adapted)


def _work_of(recipe: Recipe, name: str) -> Work:
    stage = recipe.stages[name]
    if isinstance(stage, TokenizerStage):
        return Work(name, stage.kind)
    config = model_of(recipe, name)
    if isinstance(stage, RejectStage):
        sampled = stage.count * stage.samples * stage.max_completion_tokens
        flops = _sampling_flops(config, sampled, PROMPT_TOKENS, stage.max_completion_tokens)
        return Work(name, stage.kind, config, sampled_tokens=sampled, sampling_flops=flops)
    if isinstance(stage, EvalStage):
        examined, flops = _examination(config, stage.evaluation or recipe.evaluation)
        return Work(name, stage.kind, config, sampled_tokens=examined, sampling_flops=flops)
    if isinstance(stage, RlStage):
        return _reinforcement(recipe, name, stage, config)
    return _supervision(recipe, name, stage, config)


def _supervision(
    recipe: Recipe, name: str, stage: PretrainStage | SftStage | DistillStage, config: ModelConfig
) -> Work:
    length, notes = stage.sequence_length, []
    found = data_tokens(recipe, stage.data, length)
    published = recipe.published.get(name)
    if published is not None and published.tokens:
        found = published.tokens
    if isinstance(stage, PretrainStage):
        tokens: float = stage.tokens
    else:
        tokens = (found or 0) * stage.epochs
        if found is None:
            notes.append(f"{name}: its data are not here to be counted, so its training is not in this plan")
    steps = steps_for_tokens(int(tokens), stage.batch_rows, length)
    sampled, sampling = _evaluations(recipe, stage, config, steps)
    return Work(
        name,
        stage.kind,
        config,
        steps,
        tokens,
        sampled,
        _supervised_flops(config, stage, tokens),
        sampling,
        found or 0,
        notes,
    )


def _supervised_flops(config: ModelConfig, stage: TrainStage, tokens: float) -> float:
    """Operations of training on rows; multi-token modules run in every `mtp_every`-th step."""
    plain = training_flops(config, tokens, stage.sequence_length)
    if not stage.mtp_loss_weight:
        return plain
    return plain + (training_flops(config, tokens, stage.sequence_length, True) - plain) / stage.mtp_every


def _reinforcement(recipe: Recipe, name: str, stage: RlStage, config: ModelConfig) -> Work:
    """Sampling, then forward passes of policy and reference where they are compared, then the updates."""
    budget, samples = stage.max_completion_tokens, stage.steps * stage.problems_per_step * stage.group_size
    prompt = max(stage.sequence_length - budget, 0) or PROMPT_TOKENS
    length, sampled = prompt + budget, float(samples * budget)
    rows = float(samples * length)
    forward_passes = bool(stage.kl_weight) + (stage.updates_per_batch > 1)
    training = forward_passes * forward_flops(config, rows, length)
    training += stage.updates_per_batch * training_flops(config, rows, length)
    examined, examination = _evaluations(recipe, stage, config, stage.steps)
    sampling = _sampling_flops(config, sampled, prompt, budget) + forward_flops(
        config, samples / stage.group_size * prompt, prompt
    )
    return Work(
        name,
        stage.kind,
        config,
        stage.steps,
        rows * stage.updates_per_batch,
        sampled + examined,
        training,
        sampling + examination,
    )


def _evaluations(recipe: Recipe, stage: TrainStage, config: ModelConfig, steps: float) -> tuple[float, float]:
    """Tokens and operations of a training stage's examinations, at its end and on the way."""
    if not stage.evaluate:
        return 0, 0
    sampled, flops = _examination(config, recipe.evaluation)
    times = 1 + (int(steps - 1) // stage.evaluate_every if stage.evaluate_every else 0)
    return times * sampled, times * flops


def _examination(config: ModelConfig, evaluation: Evaluation) -> tuple[float, float]:
    budget = evaluation.max_completion_tokens
    sampled = evaluation.count * evaluation.samples * budget
    return sampled, _sampling_flops(config, sampled, PROMPT_TOKENS, budget)


def _sampling_flops(config: ModelConfig, tokens: float, prompt: float, budget: float) -> float:
    """Operations of generating: every token sees the prompt and, on the mean, half of the completion."""
    return forward_flops(config, tokens, prompt + budget / 2, causal=False)


def data_tokens(recipe: Recipe, sources: Sequence[DataSource], length: int) -> float | None:
    """Tokens of a stage's sources, None where one of them is not here to be counted."""
    counts = [_source_tokens(recipe, source, length) for source in sources]
    return None if None in counts else sum(count for count in counts if count is not None)


def _source_tokens(recipe: Recipe, source: DataSource, length: int) -> float | None:
    if source.stage is not None:
        earlier = recipe.stages[source.stage]
        if isinstance(earlier, RejectStage):
            kept = earlier.count * min(earlier.keep_per_problem, earlier.samples)
            return min(source.count or kept, kept) * length * EXAMPLE_SHARE
        return None
    if source.path is not None:
        size = _size(Path(source.path))
        return None if size is None else size / BYTES_PER_TOKEN
    return source.count * length * EXAMPLE_SHARE if source.count else None


def _size(path: Path) -> int | None:
    """Bytes of a file, or of the pages in a folder."""
    if path.is_dir():
        pages = (page for page in path.rglob("*") if page.suffix.lower() in (".txt", ".md"))
        return sum(page.stat().st_size for page in pages if page.is_file())
    return path.stat().st_size if path.is_file() else None


def model_of(recipe: Recipe, name: str) -> ModelConfig:
    """The shape of the model that a stage works on, its vocabulary filled in; InputError without one."""
    stage = recipe.stages[name]
    assert not isinstance(stage, TokenizerStage)
    if stage.start in recipe.models:
        return sized_for(recipe.models[stage.start], vocabulary_of(recipe, name), stage.start)
    if stage.start in recipe.stages:
        if isinstance(recipe.stages[stage.start], TokenizerStage):
            raise InputError(f"stages.{name}.start is {stage.start!r}, which leaves a tokenizer and no model")
        return model_of(recipe, stage.start)
    if not Path(stage.start).exists():
        known = ", ".join([*recipe.models, *recipe.stages])
        raise InputError(
            f"stages.{name}.start is {stage.start!r}: no model, stage or directory of that name; "
            f"known: {known}"
        )
    return load_config(resolve_model(Path(stage.start)))


def vocabulary_of(recipe: Recipe, name: str) -> int:
    """The size of the tokenizer that a stage's new model takes, at most (text may not fill a vocabulary)."""
    wanted = getattr(recipe.stages[name], "tokenizer", None)
    trained = {stage: t.vocab_size for stage, t in recipe.stages.items() if isinstance(t, TokenizerStage)}
    if wanted is None and len(trained) != 1:
        stages = ", ".join(trained) or "none"
        raise InputError(f"stages.{name}.tokenizer is missing; tokenizer stages: {stages}")
    chosen = next(iter(trained)) if wanted is None else wanted
    return trained[chosen] if chosen in trained else Tokenizer.load(Path(chosen)).vocab_size
