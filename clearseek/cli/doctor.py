"""`clearseek doctor`: this machine's facts, or what ails a run."""

from pathlib import Path
from typing import Any

import click

from clearseek.cli.options import RunPath, device_option, json_option, print_json

EPILOG = """\b
Examples:
  clearseek doctor
  clearseek doctor runs/r1-mini
  clearseek doctor --json > machine.json

\b
For a run it reads the records and says why a reward is flat: groups all wrong
or all right, answers cut short, the format never hit, entropy gone, a rate too
small, and what to change.

Exit codes: 0 done (also when something ails), 1 failed, 2 no such run."""

_GIB = 2**30


@click.command("doctor", epilog=EPILOG)
@click.argument("run", required=False, type=RunPath())
@device_option
@json_option
def command(run: Path | None, device: str, as_json: bool) -> None:
    """Describe this machine, or say what ails a run.

    RUN is a run directory.
    """
    if run is None:
        from clearseek.cli.machine import machine_facts

        facts = machine_facts(device)
        print_json(facts) if as_json else _print_machine(facts)
        return
    from clearseek.ledger.doctor import diagnose

    findings = diagnose(run)
    if as_json:
        print_json({"findings": [finding.to_dict() for finding in findings]})
    else:
        click.echo("\n\n".join(map(str, findings)) or "nothing ails this run")


def _print_machine(facts: dict[str, Any]) -> None:
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in facts["packages"].items())
    rows = {
        "processor": facts["processor"],
        "cores": facts["cores"],
        "instructions": ", ".join(facts["instructions"] or []) or "unknown",
        "memory": f"{_gib(facts['memory_bytes'])}, {_gib(facts['memory_available_bytes'])} available",
        "disk": f"{_gib(facts['disk_free_bytes'])} free here",
        "system": facts["system"],
        "python": facts["python"],
        "packages": packages,
        "compiler": facts["compiler"] or "none: torch.compile is left out, which is slower but works",
        "device": f"{facts['device']} in {facts['dtype']}: {facts['reason']}",
    }
    for name, value in rows.items():
        click.echo(f"{name:<13} {value}")


def _gib(num_bytes: int | None) -> str:
    return "unknown" if num_bytes is None else f"{num_bytes / _GIB:.1f} GiB"
