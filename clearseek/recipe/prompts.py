"""Whether a stage's problems fit its model, each with its completion: told before a step of the stage is paid for."""

from collections.abc import Sequence

from clearseek.config.errors import InputError
from clearseek.config.recipe import EvalStage, Evaluation, Problems, Recipe, RejectStage, RlStage, Stage
from clearseek.engine.rollout import encode_problem
from clearseek.tasks.problem import Problem
from clearseek.tasks.user import place_of
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.problem_source import ProblemSource

_GENERATED = 64  # problems of a stage without end that are looked at: they are all of a kind


def check_prompts(recipe: Recipe, name: str, tokenizer: Tokenizer, context: int) -> None:
    """Raise InputError where a problem that stage `name` may ask leaves no room for its completion.

    Of users' and gym's problems each is looked at, of generated ones some. `context` is the model's, in tokens.
    """
    stage = recipe.stages[name]
    words = f"the model's context ({context}); lower max_completion_tokens"
    if isinstance(stage, RlStage | RejectStage):
        source = ProblemSource(stage.problems, recipe.seed, name)
        problems = source.pool["train"] if source.is_finite else source.draw(0, _GENERATED)
        limit = context, words
        if isinstance(stage, RlStage) and source.is_finite and stage.sequence_length < context:
            row = stage.sequence_length
            limit = row + 1, f"sequence_length ({row}); raise it or lower max_completion_tokens"
        place = f"stages.{name}.problems"
        _refuse_long(place, stage.problems, problems, tokenizer, stage.max_completion_tokens, limit)
    if (found := _evaluation(recipe, name, stage)) is not None:
        place, chosen = found
        source = ProblemSource(chosen.problems, recipe.seed, "evaluation")
        problems = source.held_out(chosen.count if source.is_finite else min(chosen.count, _GENERATED))
        budget, limit = chosen.max_completion_tokens, (context, words)
        _refuse_long(f"{place}.problems", chosen.problems, problems, tokenizer, budget, limit)


def _evaluation(recipe: Recipe, name: str, stage: Stage) -> tuple[str, Evaluation] | None:
    """The evaluation that a stage's model is put to, and where the recipe has it."""
    if isinstance(stage, EvalStage) and stage.evaluation is not None:
        return f"stages.{name}.evaluation", stage.evaluation
    examined = isinstance(stage, EvalStage) or getattr(stage, "evaluate", False)
    return ("evaluation", recipe.evaluation) if examined or getattr(stage, "evaluate_every", None) else None


def _refuse_long(
    place: str,
    source: Problems,
    problems: Sequence[Problem],
    tokenizer: Tokenizer,
    budget: int,
    limit: tuple[int, str],
) -> None:
    most, words = limit
    lengths = [(len(encode_problem(tokenizer, problem)), problem) for problem in problems]
    long = [(length, problem) for length, problem in lengths if length + budget > most]
    if not long:
        return
    length, problem = long[0]
    files = [path for path in (source.path, source.held_out_path) if path is not None]
    places = [found for path in files if (found := place_of(path, problem)) is not None]
    more = f" (and {len(long) - 1} more)" if len(long) > 1 else ""
    which = places[0] if places else f"{problem.family} {problem.id}"
    raise InputError(
        f"{place}: {which}{more}: the prompt holds {length} tokens, "
        f"with max_completion_tokens ({budget}) more than {words}, or shorten the problem or leave it out"
    )
