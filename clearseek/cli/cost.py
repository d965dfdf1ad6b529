"""`clearseek cost`: what a run has cost, by stage and by point of accuracy, beside what R1 cost."""

from pathlib import Path
from typing import Any

import click

from clearseek.cli.options import RunPath, inherited_words, json_option, print_columns, print_json

EPILOG = """\b
Examples:
  clearseek cost runs/r1-mini
  clearseek cost runs/r1-mini --tariff cpu_hour=0.04,kwh=0.2,currency=EUR
  clearseek cost runs/r1-mini --tariff prices.toml --json

\b
A tariff's keys: currency, cpu_hour, gpu_hour, kwh; and core_watts, gpu_watts,
which stand in for energy that this machine doesn't tell. A price that a stated
tariff leaves out is nothing. Without one, prices are assumed, and said.

Exit codes: 0 done, 1 the records disagree, 2 the input is wrong."""


@click.command("cost", epilog=EPILOG)
@click.argument("run", type=RunPath())
@click.option("--tariff", envvar="CLEARSEEK_TARIFF", help="Prices as KEY=NUMBER,..., or a TOML file of them.")
@click.option("--key", help="The key that must have signed the cost: NAME+ID+KEY.")
@json_option
def command(run: Path, tariff: str | None, key: str | None, as_json: bool) -> None:
    """Say what a run has cost, by stage and by point of accuracy.

    RUN is a run directory. The figures are those of its clock, which are
    signed in cost.note when the run ends.
    """
    from clearseek.ledger.cost import cost_of
    from clearseek.ledger.tariff import Tariff

    cost = cost_of(run, Tariff.read(tariff) if tariff else None, key)
    if as_json:
        print_json(cost)
        return
    print_columns(_rows(cost))
    click.echo()
    for line in _words(cost):
        click.echo(line)


def _rows(cost: dict[str, Any]) -> list[list[str]]:
    currency = cost["tariff"]["currency"]
    rows = [
        [
            "stage",
            "wall s",
            "CPU s",
            "GPU s",
            "peak MB",
            "TFLOP",
            "Wh",
            currency,
            "points",
            f"{currency}/point",
        ]
    ]
    for stage in [*cost["stages"], {"name": "all", "gained": None, "per_point": None} | cost["total"]]:
        gained, per_point = stage["gained"], stage["per_point"]
        rows.append(
            [
                stage["name"],
                f"{stage['wall_seconds']:,.1f}",
                f"{stage['cpu_seconds']:,.1f}",
                f"{stage['gpu_seconds']:,.1f}",
                "" if stage["peak_memory_bytes"] is None else f"{stage['peak_memory_bytes'] / 1e6:,.0f}",
                f"{stage['flops'] / 1e12:,.2f}",
                f"{stage['kwh'] * 1000:,.3f}",
                f"{stage['money']:.6f}",
                "" if gained is None else f"{gained * 100:+.1f}",
                "" if per_point is None else f"{per_point['money']:.2g}",
            ]
        )
    return rows


def _words(cost: dict[str, Any]) -> list[str]:
    tariff, result, beside = cost["tariff"], cost["result"], cost["beside_deepseek"]
    prices = ", ".join(f"{key} {tariff[key]:g}" for key in ("cpu_hour", "gpu_hour", "kwh"))
    lines = [f"energy: {cost['total']['kwh_method']}"]
    whose = "assumed; state yours with --tariff" if tariff["assumed"] else "as stated"
    lines.append(f"prices in {tariff['currency']}: {prices} ({whose})")
    lines.append(
        "time: as the run's key signed it"
        if cost["signed"]
        else "time: not signed; a run is signed when it ends"
    )
    lines += inherited_words(cost["inherited"])
    if result and result["per_point"]:
        lines.append(
            f"{result['stage']}: {result['accuracy'] * 100:.1f} % cost {result['money']:.4f} {tariff['currency']} with "
            f"all that led to it, {result['per_point']['money']:.2g} a point"
        )
    ratio = beside["ratio"]
    told = [f"{ratio[key]:.2g} times the {word}" for key, word in _TOLD if ratio[key] is not None]
    lines.append(f"DeepSeek-V3 and R1 took {', '.join(told)}, if one assumes:")
    return lines + [f"  - {line}" for line in beside["assumptions"]]


_TOLD = (("money", "money"), ("flops", "operations"), ("kwh", "energy"))
