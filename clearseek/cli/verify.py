"""`clearseek verify`: one candidate answer against one verifier."""

import sys

import click

from clearseek.cli.options import json_option, print_json

EPILOG = """\b
Examples:
  echo "1,090" | clearseek verify number --answer 1090
  echo "1/2" | clearseek verify math --answer 0.5 --json
  echo "[3, 1]" | clearseek verify checks.py:is_sorted --answer "[1, 3]"

\b
The verdict is correct, wrong, unparseable (not an answer of the right kind,
such as words where a number is due) or error (the verifier itself failed or
took too long; the reason is on standard error).

Exit codes: 0 a verdict was given, whichever; 1 failed; 2 no such verifier."""


@click.command("verify", epilog=EPILOG)
@click.argument("verifier")
@click.option("--answer", required=True, help="The right answer.")
@json_option
def command(verifier: str, answer: str, as_json: bool) -> None:
    """Check one answer with a verifier.

    VERIFIER is number, exact, choice, math, regex, json, or a Python function
    as path.py:function. The candidate is read from standard input.
    """
    from clearseek.tasks.worker import VerifierPool

    if sys.stdin.isatty():
        click.echo("Type the candidate, then Ctrl-D on a line of its own.", err=True)
    candidate = sys.stdin.read().strip()
    with VerifierPool() as pool:
        (verdict,) = pool.verify_many([(verifier, candidate, answer)])
        why = pool.last_error
    if verdict == "error" and why:
        click.echo(why, err=True)
    if as_json:
        print_json({"verdict": str(verdict)})
    else:
        click.echo(str(verdict))
