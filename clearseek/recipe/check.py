"""What a recipe refers to, looked up before anything runs: a slip in the last stage costs no hour."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from clearseek.config.errors import InputError
from clearseek.config.load import SHOWN, nearest
from clearseek.config.recipe import (
    DataSource,
    EvalStage,
    Problems,
    Recipe,
    RejectStage,
    RlStage,
    Stage,
    StageBase,
    SupervisedStage,
    TokenizerStage,
)
from clearseek.model.families import check_config
from clearseek.recipe.workload import model_of
from clearseek.tasks.gym import load_gym
from clearseek.tasks.registry import generate
from clearseek.tasks.user import load_problems

_WITHOUT_MODEL = (TokenizerStage, RejectStage, EvalStage)


def check_recipe(recipe: Recipe) -> None:
    """Raises InputError with every stage, family, file or directory that is not there or not what it should be."""
    wrong = [*_wrong_models(recipe), *_wrong_problems("evaluation.problems", recipe.evaluation.problems)]
    earlier: dict[str, Stage] = {}
    for name, stage in recipe.stages.items():
        wrong += _wrong_in_stage(recipe, f"stages.{name}", stage, earlier)
        earlier[name] = stage
    _refuse(wrong)
    check_lengths(recipe)


def _wrong_models(recipe: Recipe) -> Iterator[str]:
    """Models that could be trained but not saved in the format that they name."""
    for name, config in recipe.models.items():
        try:
            check_config(config)
        except InputError as error:
            yield f"models.{name}: {error}"


def check_lengths(recipe: Recipe) -> None:
    """Raises InputError for rows longer than their model's context, and completions that leave no room to ask."""
    _refuse(list(_too_long(recipe)))


def _refuse(wrong: list[str]) -> None:
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise InputError("; ".join(wrong[:SHOWN]) + more)


def _wrong_in_stage(recipe: Recipe, place: str, stage: Stage, earlier: dict[str, Stage]) -> Iterator[str]:
    if not isinstance(stage, TokenizerStage):
        yield from _wrong_start(recipe, place, stage.start, earlier)
    tokenizer = getattr(stage, "tokenizer", None)
    is_stage = isinstance(earlier.get(tokenizer or ""), TokenizerStage)
    if tokenizer and not is_stage and (tokenizer in recipe.stages or not Path(tokenizer).is_dir()):
        yield f"{place}.tokenizer is {tokenizer!r}: no earlier tokenizer stage and no directory"
    for key in ("data", "sft_data"):
        for index, source in enumerate(getattr(stage, key, [])):
            yield from _wrong_source(f"{place}.{key}[{index}]", source, earlier)
    if isinstance(stage, RlStage | RejectStage):
        yield from _wrong_problems(f"{place}.problems", stage.problems)
    if isinstance(stage, EvalStage) and stage.evaluation is not None:
        yield from _wrong_problems(f"{place}.evaluation.problems", stage.evaluation.problems)
    if isinstance(stage, RejectStage):
        for name in stage.include_retired:
            if not isinstance(earlier.get(name), RlStage):
                known = [other for other, its in earlier.items() if isinstance(its, RlStage)]
                yield f"{place}.include_retired: {name!r} is no earlier rl stage{nearest(name, known)}"


def _wrong_start(recipe: Recipe, place: str, start: str, earlier: dict[str, Stage]) -> Iterator[str]:
    if start in recipe.models:
        return
    if start in earlier:
        if isinstance(earlier[start], _WITHOUT_MODEL):
            yield f"{place}.start is {start!r}, a {earlier[start].kind} stage, which leaves no model"
    elif not Path(start).exists():
        known = [
            *recipe.models,
            *(name for name, its in earlier.items() if not isinstance(its, _WITHOUT_MODEL)),
        ]
        yield f"{place}.start is {start!r}: no model, stage or directory of that name{nearest(start, known)}"


def _wrong_source(place: str, source: DataSource, earlier: dict[str, Stage]) -> Iterator[str]:
    if source.problems is not None:
        yield from _wrong_problems(f"{place}.problems", source.problems)
    if source.path is not None and not Path(source.path).exists():
        yield f"{place}.path is {source.path!r}: no such file or folder"
    library = _library_for(source)
    if library and find_spec(library) is None:
        yield f"{place} needs an extra to be read: pip install 'clearseek[data]'"
    if source.stage is not None and not isinstance(earlier.get(source.stage), RejectStage | RlStage):
        yield f"{place}.stage is {source.stage!r}, which leaves no examples; name a reject or rl stage"


def _library_for(source: DataSource) -> str | None:
    """The library of an extra that a source is read with, if it needs one."""
    if source.dataset is not None:
        return "datasets"
    return "pyarrow" if source.path is not None and source.path.endswith(".parquet") else None


def _wrong_problems(place: str, problems: Problems) -> Iterator[str]:
    for key in ("path", "held_out_path"):
        path = getattr(problems, key)
        if path is not None and not Path(path).is_file():
            yield f"{place}.{key} is {path!r}: no such file"
        elif path is not None:
            try:
                load_problems(path)
            except InputError as error:
                yield f"{place}.{key}: {error}"
    for name in problems.gym or []:
        try:
            load_gym(name, 1, 0, "train")
        except InputError as error:
            yield f"{place}.gym: {error}"
    if problems.path is None and problems.gym is None:
        try:
            generate(problems.tasks, problems.languages, problems.levels, 0, 0, "train")
        except InputError as error:
            yield f"{place}: {error}"


def _too_long(recipe: Recipe) -> Iterator[str]:
    for name, stage in recipe.stages.items():
        if isinstance(stage, TokenizerStage):
            continue
        context = model_of(recipe, name).max_position_embeddings
        # a row of rl holds several short texts, so its length alone says nothing
        if isinstance(stage, SupervisedStage) and stage.sequence_length > context:
            yield _beyond(f"stages.{name}.sequence_length ({stage.sequence_length})", stage, context)
        if isinstance(stage, RlStage | RejectStage) and stage.max_completion_tokens >= context:
            place = f"stages.{name}.max_completion_tokens ({stage.max_completion_tokens})"
            yield _beyond(place, stage, context)
        own = stage.evaluation if isinstance(stage, EvalStage) else None
        examined = isinstance(stage, EvalStage) or getattr(stage, "evaluate", False)
        budget = (own or recipe.evaluation).max_completion_tokens
        if examined and budget >= context:
            place = f"stages.{name}.evaluation" if own else "evaluation"
            yield _beyond(f"{place}.max_completion_tokens ({budget})", stage, context)


def _beyond(place: str, stage: StageBase, context: int) -> str:
    return f"{place} does not fit the context of {stage.start!r}: its max_position_embeddings is {context}"
