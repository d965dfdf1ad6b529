"""What a run examines its models with: problems of its recipe, and documents that were held out of its sources."""

from clearseek.config.load import load_recipe
from clearseek.config.recipe import EvalStage
from clearseek.trace.kept import held_out_path, read_shard, shard_path, text_of
from clearseek.trace.problem_source import ProblemSource
from clearseek.trace.sources import RunReadings


def evaluation_texts(readings: RunReadings) -> dict[str, str]:
    """Every evaluation set by name, its items on lines of their own."""
    recipe = load_recipe(readings.run_dir / "recipe.toml")
    sets = {"evaluation": recipe.evaluation}
    for name, table in recipe.stages.items():
        if isinstance(table, EvalStage) and table.evaluation is not None:
            sets[f"evaluation of {name}"] = table.evaluation
    found = {}
    for name, chosen in sets.items():
        problems = ProblemSource(chosen.problems, readings.seed, "evaluation").held_out(chosen.count)
        found[name] = "\n".join(
            f"{problem.prompt}\n{problem.solution}\n{problem.answer}" for problem in problems
        )
    for stage in readings.stages:
        for number in range(len(stage.data)):
            path = held_out_path(shard_path(readings.run_dir, stage.name, number))
            if path.is_file():
                found[f"held out of {stage.name}/{number}"] = "\n".join(map(text_of, read_shard(path)))
    return found
