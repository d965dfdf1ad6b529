"""`clearseek papers`: every paper of a run, generated from its records and signed."""

from pathlib import Path

import click

from clearseek.cli.options import RunPath, json_option, print_json

EPILOG = """\b
Examples:
  clearseek papers runs/r1-mini
  clearseek papers runs/r1-mini --out release --provider "A. Lab" --contact a@lab.example
  clearseek papers --check downloaded/r1-mini-papers --key "clearseek/1f…+c0ffee00+AR…"
  clearseek papers runs/mine --weights Apache-2.0 --documents CC-BY-4.0

\b
Written: README.md (model card), data-card.md, report.md, paper.md,
eu-summary.md, data/ with a Croissant description of each set, bom.cdx.json
(CycloneDX 1.7), model.sig (OpenSSF Model Signing), provenance.intoto.jsonl,
mof.yml, openness.json, code.json, cost.json, evaluation.json, and release.note,
which signs the hash of each. Nothing is written into the run.

\b
Licences, provider and contact that are not given are those of the recipe's
[release] table; what neither states is said to be not stated.

Exit codes: 0 written, 1 the run doesn't verify, 2 the input is wrong."""


@click.command("papers", epilog=EPILOG)
@click.argument("run", type=RunPath())
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to write.  [default: RUN-papers]"
)
@click.option("--weights", metavar="LICENCE", help="Licence of the weights, an SPDX id or expression.")
@click.option("--documents", metavar="LICENCE", help="Licence of the papers, an SPDX id or expression.")
@click.option("--provider", help="Who publishes the model.")
@click.option("--contact", help="Where to write to them.")
@click.option("--tariff", envvar="CLEARSEEK_TARIFF", help="Prices, as in `clearseek cost`.")
@click.option("--key", help="The key that must have sealed the run, or signed the papers: NAME+ID+KEY.")
@click.option("--check", is_flag=True, help="Check papers that lie in RUN, instead of writing any.")
@json_option
def command(
    run: Path,
    out: Path | None,
    weights: str | None,
    documents: str | None,
    provider: str | None,
    contact: str | None,
    tariff: str | None,
    key: str | None,
    check: bool,
    as_json: bool,
) -> None:
    """Write every paper of a finished run: cards, bills of materials, checklists.

    RUN is a run directory. It is verified first.
    """
    if check:
        _check(run, key, as_json)
        return
    from clearseek.ledger.tariff import Tariff
    from clearseek.papers.facts import Publisher, read_facts
    from clearseek.papers.release import papers_beside, write_papers

    stated = Publisher(weights, documents, provider, contact)
    facts = read_facts(run, stated, Tariff.read(tariff) if tariff else None, key)
    place = out or papers_beside(run)
    found = write_papers(facts, place)
    if as_json:
        print_json({"papers": str(place), **found})
        return
    click.echo(f"{place}: {found['mof']['name']}")
    click.echo(f"check  clearseek openness {run} --papers {place}")


def _check(papers: Path, key: str | None, as_json: bool) -> None:
    from clearseek.papers.release import NOTE, read_release

    release = read_release(papers, key)
    if as_json:
        print_json(release)
        return
    click.echo(f"{len(release['files'])} files, each as {NOTE} names it, and no others")
    click.echo(f"papers of {release['name']}, ledger root {release['ledger']['root']}")
