"""`clearseek ledger verify`: lines, seal and files of a run, checked by whoever doubts them."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from clearseek.cli.options import json_option, print_json
from clearseek.config.errors import InputError, RunError

if TYPE_CHECKING:
    from clearseek.ledger.verifier import Verified

EPILOG = """\b
Examples:
  clearseek ledger verify runs/r1-mini
  clearseek ledger verify downloaded/run --key AR…

\b
The key in a run's ledger.pub only shows that the run is whole. Whose run it is
only a key shows that you have from its author: give that one with --key, as
the whole line of ledger.pub or as its last part, which all runs of an author share.
The check itself is one file, clearseek/ledger/verifier.py, made to be read.

Exit codes: 0 all of it holds, 1 something is wrong and named, 2 no such run."""


@click.command("verify", epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--key", help="The key that must have sealed the run: NAME+ID+KEY, or KEY.")
@json_option
def command(run: Path, key: str | None, as_json: bool) -> None:
    """Check a run's ledger and every file that it names.

    RUN is the directory of a run, or of a model that brings its run along.
    The first thing that is wrong is named.
    """
    from dataclasses import asdict

    from clearseek.ledger.verifier import COST, EXCERPT, LEDGER, UNSEALED_FILES, Wrong, verify_run
    from clearseek.trace.excerpt import brings_run, check_model, find_run, named

    model, run = named(run), find_run(run)
    if not (run / LEDGER).is_file():
        raise InputError(f"{run} has no {LEDGER}: give the directory of a run, such as runs/r1-mini")
    try:
        found = verify_run(run, key)
    except Wrong as error:
        raise RunError(f"{run}: {error}") from None
    files = check_model(model) if brings_run(model) else None
    if as_json:
        print_json(asdict(found) | ({} if files is None else {"model": files}))
        return
    unsealed = found.lines - found.sealed
    click.echo(
        f"{found.lines:,} lines, every link holds{'; a torn last line is left out' if found.torn else ''}"
    )
    click.echo(f"sealed by {found.signer}: {found.sealed:,} lines, root {found.root}")
    click.echo(
        "by the key you gave" if key else "whose key that is, no run can show: give its author's with --key"
    )
    if unsealed:
        click.echo(f"{unsealed:,} lines since then are not sealed yet")
    click.echo(
        f"{found.files:,} files, {found.bytes:,} bytes, each as recorded{', and no others' * found.ended}"
    )
    if found.left_out:
        click.echo(
            f"{found.left_out:,} files are not in this copy, weights and states, as the same key signed"
        )
    if files is not None:
        click.echo(f"{len(files):,} files of the model in {model}, each as the same key signed")
    if not found.ended:
        click.echo(
            "the run has not ended: later lines may be missing, and files of its last stage have no record"
        )
    if loose := [name for name in UNSEALED_FILES if (run / name).exists()]:
        click.echo(f"not vouched for: {', '.join(loose)}")
    if notes := [name for name in (COST, EXCERPT) if (run / name).exists()]:
        click.echo(f"signed by the same key: {', '.join(notes)}")
    _print_witnesses(found)


def _print_witnesses(found: "Verified") -> None:
    """What others signed beside the run, in its folder of witnesses."""
    for count, outcome in ((found.witnesses, "the same"), (found.disputed, "otherwise")):
        if count:
            click.echo(
                f"{count:,} other key{'s' * (count > 1)} signed that what was computed again came out {outcome}; "
                "whose they are, only you can know"
            )
    for count, outcome in ((found.private, "nothing left the machine"), (found.leaking, "it failed")):
        if count:
            click.echo(f"{count:,} signed privacy test{'s' * (count > 1)}: {outcome}")
