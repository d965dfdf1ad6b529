"""Rejection sampling: keep right, readable completions as examples for a later stage (R1's third step)."""

from collections.abc import Callable

from clearseek.config.errors import RunError
from clearseek.config.recipe import RejectStage
from clearseek.engine.request import Sampling
from clearseek.engine.rollout import Group, Judged, describe
from clearseek.model.decoder import Decoder
from clearseek.tasks.problem import Problem
from clearseek.tasks.verify import Verdict
from clearseek.text.documents import Conversation
from clearseek.text.sources import open_source
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.problem_source import PROBLEMS_AT_A_TIME, ProblemSource
from clearseek.train.context import StageContext
from clearseek.train.corpus import kept_samples_path
from clearseek.train.flops import forward_flops
from clearseek.train.intake import write_rows
from clearseek.train.parallel import on_first, roll_out_together


class RejectionSampler:
    """Samples and judges the problems of a reject stage, round by round."""

    def __init__(
        self, context: StageContext, stage: RejectStage, model: Decoder, tokenizer: Tokenizer
    ) -> None:
        self.context, self.stage, self.tokenizer = context, stage, tokenizer
        self.engine = context.open_sampler(model, tokenizer)
        self.source = ProblemSource(stage.problems, context.recipe.seed, context.stage)
        self.sampling = Sampling(stage.temperature, 1.0, stage.max_completion_tokens)
        self.num_rounds = -(-stage.count // PROBLEMS_AT_A_TIME)

    def first_kept(self) -> list[dict[str, str]]:
        """The examples that are kept before anything is sampled."""
        return [one for name in self.stage.include_retired for one in retired_examples(self.context, name)]

    def round(self, turn: int) -> tuple[list[dict[str, str]], dict[str, float]]:
        """What a round (from 0) keeps, and what its record says of everything sampled."""
        stage = self.stage
        groups = roll_out_together(
            self.engine,
            self.tokenizer,
            self.context.asked(self.source.batch(turn, stage.count)),
            stage.samples,
            self.sampling,
            _key(self.context, turn),
            self.context.verifiers,
        )
        return [example for group in groups for example in keep(group, stage)], describe(groups)


def run_reject(
    context: StageContext, stage: RejectStage, model: Decoder, tokenizer: Tokenizer
) -> dict[str, float]:
    """Sample, judge and keep; writes `data/STAGE.jsonl` and one `step` record per round; returns totals."""
    sampler = RejectionSampler(context, stage, model, tokenizer)
    kept, sampled = sampler.first_kept(), 0.0
    for turn in range(sampler.num_rounds):
        examples, numbers = sampler.round(turn)
        kept += examples
        sampled += numbers["completion_tokens"] * numbers["groups"] * stage.samples
        context.record("step", step=turn + 1, kept=len(kept), **numbers)
        context.progress.step(turn + 1, sampler.num_rounds, kept=len(kept))
    if not kept:
        raise RunError(
            f"stage {context.stage} kept no sample of {stage.count} problems: the model at {stage.start!r} "
            "solves none of them; train it further, or lower min_language_consistency"
        )
    path = kept_samples_path(context.run_dir, context.stage)
    on_first("the kept samples", lambda: write_rows(path, kept))
    return {"tokens": sampled, "flops": forward_flops(model.config, sampled, stage.max_completion_tokens)}


def _key(context: StageContext, turn: int) -> Callable[[Problem], int]:
    return lambda problem: context.key(turn, problem.id)


def keep(group: Group, stage: RejectStage) -> list[dict[str, str]]:
    """The first right and consistent completions of a group, no two thoughts alike, as examples."""
    good: dict[str, Judged] = {}
    for item in group.judged:
        if _is_good(item, stage.min_language_consistency):
            good.setdefault(item.thought, item)
    chosen = list(good.values())[: stage.keep_per_problem]
    return [
        {"prompt": group.problem.prompt, "thought": item.thought, "answer": item.answer or ""}
        for item in chosen
    ]


def _is_good(item: Judged, min_consistency: float) -> bool:
    consistency = 1.0 if item.language_consistency is None else item.language_consistency
    return item.verdict == Verdict.correct and not item.is_truncated and consistency >= min_consistency


def retired_examples(context: StageContext, stage: str) -> list[dict[str, str]]:
    """The answers that an rl stage kept of the problems it retired."""
    path = kept_samples_path(context.run_dir, stage)
    if not path.exists() or not path.stat().st_size:
        return []
    return [
        {"prompt": document.history[-1]["content"], "thought": document.thought, "answer": document.answer}
        for document in open_source(path)
        if isinstance(document, Conversation)
    ]
