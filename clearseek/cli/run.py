"""`clearseek run`: run a recipe's stages, continue a stopped run, or print what it would take."""

from pathlib import Path
from typing import Any

import click

from clearseek.cli.options import (
    FiniteRange,
    RecipeName,
    columns,
    device_option,
    is_first_rank,
    json_option,
    print_json,
)

EPILOG = """\b
Examples:
  clearseek run r1-mini
  clearseek run recipes/r1-mini.toml --out runs/second -s seed=2
  clearseek run r1-671b --dry-run --accelerator h800 --count 2048 --price 2
  torchrun --nproc-per-node 2 -m clearseek run r1-mini

\b
The same command again continues a run that was stopped, from its last resume
point and to the same bytes. A recipe that changed meanwhile is refused with
the difference shown, unless --fork continues in a new directory from the first
stage that changed.

Exit codes: 0 done, 1 failed, 2 the recipe or an option is wrong, 130 interrupted."""


@click.command("run", epilog=EPILOG)
@click.argument("recipe", type=RecipeName())
@click.option(
    "overrides",
    "-s",
    "--set",
    multiple=True,
    metavar="STAGE.KEY=VALUE",
    help="Change one value of the recipe; may be repeated.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="RUN",
    help="The run's directory.  [default: runs/NAME]",
)
@click.option(
    "--fork", is_flag=True, help="Where the recipe differs from the run's, continue in a new directory."
)
@click.option("--dry-run", is_flag=True, help="Print parameters, memory, time and money; run nothing.")
@click.option(
    "--accelerator", metavar="NAME", help="With --dry-run: plan for this accelerator, not this machine."
)
@click.option(
    "--count", type=click.IntRange(min=1), help="With --dry-run: how many accelerators.  [default: 1]"
)
@click.option(
    "--price", type=FiniteRange(min=0), metavar="USD", help="With --dry-run: dollars an hour, each."
)
@click.option(
    "--lane", metavar="NAME", help="What bits may depend on: cpu-native, cpu-avx2, cpu-portable or cuda-smNN."
)
@device_option
@json_option
def command(
    recipe: str,
    overrides: tuple[str, ...],
    out: Path | None,
    fork: bool,
    dry_run: bool,
    accelerator: str | None,
    count: int | None,
    price: float | None,
    lane: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Run a recipe, or continue a run that was stopped.

    RECIPE is a TOML file, or the name of a recipe that comes with clearseek.
    """
    from clearseek.config.shipped import find_recipe

    path = find_recipe(recipe)
    if dry_run:
        _plan(path, list(overrides), accelerator, count or 1, price, as_json)
        return
    for option, value in (("--accelerator", accelerator), ("--count", count), ("--price", price)):
        if value is not None:
            raise click.UsageError(f"{option} belongs to --dry-run")
    if lane is not None:
        from clearseek.ledger.lanes import enter, find_lane

        enter(find_lane(lane))  # before torch is loaded
    _run(path, list(overrides), out, fork, device, lane, as_json)


def _plan(
    path: Path, overrides: list[str], accelerator: str | None, count: int, price: float | None, as_json: bool
) -> None:
    from clearseek.config.load import load_recipe
    from clearseek.recipe.plan import plan_recipe

    plan = plan_recipe(
        load_recipe(path, overrides), accelerator=accelerator, count=count, price_per_hour=price
    )
    if as_json:
        print_json(plan.to_dict())
    else:
        click.echo("\n".join(plan.render()))


def _run(
    path: Path,
    overrides: list[str],
    out: Path | None,
    fork: bool,
    device: str,
    lane: str | None,
    as_json: bool,
) -> None:
    from clearseek.cli.progress import open_progress
    from clearseek.recipe.run import run_recipe

    progress = open_progress()
    try:
        result = run_recipe(
            str(path), overrides=overrides, out=out, fork=fork, device=device, progress=progress, lane=lane
        )
    finally:
        progress.end()
    if not is_first_rank():
        return
    if as_json:
        print_json(result.report)
        return
    click.echo(printed_table(result.report))
    click.echo(f"\nreport  {result.run_dir}/report.html\ntalk    clearseek chat {result.run_dir}")


def printed_table(report: dict[str, Any]) -> str:
    """What each stage gave, as a run prints it at its end."""
    from clearseek.cli.progress import duration

    rows = [["stage", "kind", "time", "pass@1", "95 % interval"]]
    for stage in report.get("stages", []):
        score = stage.get("eval") or {}
        low, high = score.get("ci95") or (None, None)
        rows.append(
            [
                stage["name"],
                stage["kind"],
                duration(stage["wall_seconds"]),
                f"{score['pass_at_1']:.1%}" if score else "",
                f"{low:.1%} to {high:.1%}" if low is not None else "",
            ]
        )
    return columns(rows)
