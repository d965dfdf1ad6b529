"""What `clearseek eval` does: a model from a directory, problems by name or file, one examination.

A model that lies in a run is examined as the run's recipe says where the caller says nothing, and never on a
file of problems that the run was trained on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.load import load_recipe
from clearseek.config.progress import Progress, SilentProgress
from clearseek.config.recipe import Evaluation, Problems, Recipe
from clearseek.engine.engine import Engine
from clearseek.engine.request import Sampling
from clearseek.engine.rollout import Group, encode_problem, roll_out
from clearseek.engine.streams import stream_key
from clearseek.eval.examine import Examination
from clearseek.model.device import choose_device
from clearseek.model.resolve import resolve_source
from clearseek.model.source import load_source, tokenizer_directory
from clearseek.tasks.problem import Problem
from clearseek.tasks.worker import VerifierPool
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.problem_source import ProblemSource

_COMPLETIONS_AT_A_TIME = 512  # between two reports of progress; enough to keep the engine's slots full
_MOST_TOKENS = 1024  # of a completion where no recipe says: room to reason for models of unknown habits


def evaluate_path(
    model: Path,
    tasks: Sequence[str] | None = None,
    samples: int = 1,
    problems: int = 300,
    temperature: float = 0.6,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Ask a model up to `problems` held-out problems and judge its answers: the numbers of an `eval` record.

    `tasks` are families or files of problems (.jsonl); None: the run's own, else all families. Raises
    InputError where a model, a family or a file is wrong, or a file's problems are those of the training.
    """
    directory, progress = resolve_source(Path(model)), progress or SilentProgress()
    recipe = recipe_of(Path(model), directory)
    base = recipe.evaluation if recipe else Evaluation()
    asked = ask(chosen_problems(tasks, recipe), problems, seed)
    choice = choose_device(device)
    progress.note(f"{directory} on {choice.device}: {choice.reason}")
    with tokenizer_directory(directory) as files:
        tokenizer = Tokenizer.load(files)
    decoder = load_source(directory, device=choice.device)
    budget = base.max_completion_tokens
    if recipe is None:
        longest = max(len(encode_problem(tokenizer, problem)) for problem in asked)
        budget = min(_MOST_TOKENS, max(decoder.config.max_position_embeddings - longest, 1))
    tokenizer.require_room(decoder.config.vocab_size, directory)
    engine = Engine(decoder, tokenizer.stop_ids, choice.dtype)
    sampling = Sampling(temperature, base.top_p, budget)
    groups = answers(engine, tokenizer, asked, samples, sampling, seed, progress)
    settings = {"model": str(model), "seed": seed, "temperature": temperature, "top_p": base.top_p}
    return Examination(groups).record() | settings | {"max_completion_tokens": budget}


def recipe_of(model: Path, directory: Path) -> Recipe | None:
    """The recipe of the run that a model lies in: `model` is the run, `directory` one of its checkpoints."""
    for folder in (model, directory.resolve().parent.parent):
        if (folder / "recipe.toml").is_file() and (folder / "ledger.jsonl").is_file():
            return load_recipe(folder / "recipe.toml")
    return None


def chosen_problems(tasks: Sequence[str] | None, recipe: Recipe | None) -> list[Problems]:
    """Where the problems come from: all families named together, and each file on its own."""
    default = recipe.evaluation.problems if recipe else Problems()
    if tasks is None:
        return [default]
    files = [name for name in tasks if name.endswith(".jsonl") or Path(name).is_file()]
    families = [name for name in tasks if name not in files]
    generated = Problems(tasks=families, languages=default.languages, levels=default.levels)
    return [generated] * bool(families) + [_file_of_problems(name, recipe) for name in files]


def _file_of_problems(name: str, recipe: Recipe | None) -> Problems:
    """A whole file, or of one that the run was trained on the part that it held out."""
    for stage in recipe.stages.values() if recipe else ():
        trained = getattr(stage, "problems", None)
        if trained is None or trained.path is None or Path(trained.path).resolve() != Path(name).resolve():
            continue
        if trained.held_out_path is not None:
            raise InputError(
                f"{name}: this run was trained on all its problems; those held out are in "
                f"{trained.held_out_path}"
            )
        return Problems(path=name)
    return Problems(path=name, held_out_path=name)


def ask(sources: Sequence[Problems], count: int, seed: int) -> list[Problem]:
    """`count` held-out problems, as evenly as can be from every source; fewer where files hold fewer."""
    asked: list[Problem] = []
    for number, source in enumerate(sources):
        share = (count - len(asked)) // (len(sources) - number)
        asked += ProblemSource(source, seed, "evaluation").held_out(share) if share else []
    return asked


def answers(
    engine: Engine,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    samples: int,
    sampling: Sampling,
    seed: int,
    progress: Progress,
) -> list[Group]:
    """Every problem's judged completions, a part at a time, so that progress can be told."""
    groups: list[Group] = []
    size = max(_COMPLETIONS_AT_A_TIME // samples, 1)
    progress.stage("eval", "eval", 1, 1)
    with VerifierPool() as verifiers:
        for start in range(0, len(problems), size):
            groups += roll_out(
                engine,
                tokenizer,
                problems[start : start + size],
                samples,
                sampling,
                lambda problem: stream_key(seed, "evaluation", problem.id),
                verifiers,
            )
            progress.step(len(groups), len(problems))
    return groups
