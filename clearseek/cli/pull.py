"""`clearseek pull`: a model from the Hugging Face Hub."""

from pathlib import Path

import click

from clearseek.cli.options import json_option, print_json

EPILOG = """\b
Examples:
  clearseek pull Qwen/Qwen3-0.6B
  clearseek pull Qwen/Qwen3-0.6B-GGUF --include "*Q8_0.gguf" --to models
  HF_ENDPOINT=https://hf-mirror.com clearseek pull Qwen/Qwen3-0.6B

\b
This is the one command that downloads a model, from the endpoint that its
first line names (HF_ENDPOINT, else huggingface.co). HF_TOKEN is sent to it
where it is set: gated and private models need one. Nothing else is sent.
Weights come as safetensors (or GGUF, when asked for), with their configs,
tokenizers and licences; pickles and code are never fetched. Every file is
checked by its hash. Interrupted, the same command resumes.

Exit codes: 0 all there, 1 failed (network, disk), 2 no such model."""


@click.command("pull", epilog=EPILOG)
@click.argument("name", metavar="ORG/NAME")
@click.option(
    "--to",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to put it.  [default: NAME, in the working directory]",
)
@click.option("--revision", default="main", show_default=True, help="A branch, tag or commit.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files like this; may be repeated.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No files like this; may be repeated.")
@json_option
def command(
    name: str,
    directory: Path | None,
    revision: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    as_json: bool,
) -> None:
    """Download a model from the Hugging Face Hub."""
    from clearseek.cli.transfer import byte_words, open_transfer
    from clearseek.model.hub.client import Hub
    from clearseek.model.hub.pull import plan_pull, pull

    hub = Hub.of_environment()
    click.echo(f"asking {hub.endpoint} for {name} at {revision}", err=True)
    plan = plan_pull(name, directory, revision, include, exclude, hub)
    click.echo(f"{len(plan.files)} files, {byte_words(plan.num_bytes)}, into {plan.directory}", err=True)
    with open_transfer() as transfer:
        pull(plan, transfer.file)
    if as_json:
        files = [{"path": file.path, "bytes": file.size} for file in plan.files]
        print_json({"path": str(plan.directory), "revision": plan.revision, "files": files})
    else:
        click.echo(plan.directory)
