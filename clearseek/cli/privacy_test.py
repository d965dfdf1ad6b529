"""`clearseek privacy-test`: the proof that nothing leaves the machine, and nothing stays of what was typed."""

from pathlib import Path

import click

from clearseek.cli.options import json_option, print_columns, print_json
from clearseek.config.errors import InputError, RunError

EPILOG = """\b
Examples:
  clearseek privacy-test                  the small model that comes along
  clearseek privacy-test r1-mini          the same by its name
  clearseek privacy-test runs/r1-mini

\b
Trains a small run, serves, chats on the page and in the terminal and traces,
in a network namespace that has nothing but the loopback, while an audit hook
in every process notes and refuses connections. A random text is typed with
history off; every file that was written meanwhile, on all disks, is searched
for it, and a chat that is kept has to be found by the same search. Where the
machine lets nobody make such a namespace the hook alone stands guard, and the
outcome says so. Of a sealed RUN the outcome is signed with your key and left
beside it, in RUN.witness/: a ledger ends with its run.

Exit codes: 0 nothing left, 1 something did, 2 the input is wrong."""


def _find(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """A path, or the model that comes along by its bare name."""
    from clearseek.trace.excerpt import named

    if value is None:
        return None
    path = named(value)
    if not path.exists():
        raise InputError(f"no model or run at {value}, and none of that name comes with clearseek")
    return path


@click.command("privacy-test", epilog=EPILOG)
@click.argument(
    "model", metavar="[RUN|MODEL]", required=False, type=click.Path(path_type=Path), callback=_find
)
@json_option
def command(model: Path | None, as_json: bool) -> None:
    """Show that nothing leaves this machine or stays of what was typed."""
    from clearseek.config.shipped import shipped_model
    from clearseek.ledger.verifier import SEAL
    from clearseek.ledger.witness import write_witness
    from clearseek.privacy.proof import prove

    is_run = model is not None and (model / "ledger.jsonl").is_file()
    proof = prove(model or shipped_model(), model if is_run else None)
    if as_json:
        print_json(proof.facts)
    else:
        rows = [[row.what, "ok" if row.is_right else "FAILED", row.found] for row in proof.rows]
        print_columns([["tested", "", "found"], *rows])
    if proof.isolation == "hook":
        click.echo("note: no network namespace may be made here; the audit hook alone stood guard", err=True)
    if model is not None and is_run and (model / SEAL).is_file():
        click.echo(f"signed in {write_witness(model, proof.facts, 'privacy')}", err=True)
    if not proof.is_right:
        raise RunError(
            "the privacy test failed: " + "; ".join(row.what for row in proof.rows if not row.is_right)
        )
