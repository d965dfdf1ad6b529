"""`clearseek serve`: models over HTTP."""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from clearseek.cli.options import FiniteRange, device_option

if TYPE_CHECKING:
    from clearseek.config.server import Server
    from clearseek.serve.open import How
    from clearseek.serve.registry import Registry

EPILOG = """\b
Example:
  clearseek serve runs/r1-mini

\b
Then, with any client of OpenAI's API:
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "12 + 5?"}]}'

\b
Others in the network may ask too, with a key:
  clearseek serve --new-key --key-name mina --api-key-file keys
  clearseek serve runs/r1-mini --host 0.0.0.0 --allow-host box.local --api-key-file keys

\b
Clients whose model's name is fixed are answered by another one:
  clearseek serve runs/r1-mini --alias gpt-4o=r1-mini

Ctrl-C or SIGTERM lets answers end first; a second one does not.

Exit codes: 0 ended, 1 failed, 2 a model or an option is wrong."""


@click.command("serve", epilog=EPILOG)
@click.argument("models", nargs=-1, type=click.Path())
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where to listen; another one needs a key."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one."
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="A name that others call this machine by.")
@click.option(
    "--api-key-file", type=click.Path(path_type=Path), help="Answer only to keys whose hashes are here."
)
@click.option("--new-key", is_flag=True, help="Make a key, print it once, add its hash to --api-key-file.")
@click.option("--key-name", default="key", show_default=True, metavar="NAME", help="Whose the new key is.")
@click.option(
    "--history",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the page keeps what its users choose to keep.",
)
@click.option("--strict", is_flag=True, help="Refuse histories that DeepSeek's service refuses.")
@click.option("--reasoning-alias", is_flag=True, help="Thoughts in chats also as reasoning, vLLM's name.")
@click.option(
    "--max-running", type=click.IntRange(1, 4096), default=64, show_default=True, help="Answers at once."
)
@click.option(
    "--max-waiting", type=click.IntRange(0), default=256, show_default=True, help="Then others are told 429."
)
@click.option("--metrics-prefix", type=click.Choice(["clearseek", "vllm"]), default="clearseek", show_default=True,
              help="Of the names at /metrics.")  # fmt: skip
@click.option("--alias", "aliases", multiple=True, metavar="NAME=MODEL",
              help="Answer to NAME, too, by the model of that name; may be given again.")  # fmt: skip
@click.option("--max-models", type=click.IntRange(1), help="Open at once. [default: what memory allows]")
@click.option(
    "--log", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How lines look."
)
@click.option(
    "--engine",
    type=click.Choice(["clearseek", "vllm"]),
    default="clearseek",
    show_default=True,
    help="Who computes: our engine, or a vLLM server of yours.",
)
@click.option("--vllm-url", default="http://127.0.0.1:8001", show_default=True, help="Where that server is.")
@click.option(
    "--format",
    "form",
    metavar="FORMAT",
    help="How weights are kept: float32, bfloat16, int8, int4 or, on GPUs, fp8.",
)
@click.option("--speculation", metavar="KIND", help="Guess tokens ahead by mtp, ngram or a draft model.")
@click.option(
    "--cache-gib",
    type=FiniteRange(min=0, min_open=True),
    metavar="GIB",
    help="The most memory for what a model knows of texts. [default: half of what is free]",
)
@click.option("--exact", is_flag=True, help="The same bits under any load. [default: where it costs little]")
@device_option
def command(
    models: tuple[str, ...],
    aliases: tuple[str, ...],
    api_key_file: Path | None,
    new_key: bool,
    key_name: str,
    engine: str,
    vllm_url: str,
    device: str,
    form: str | None,
    speculation: str | None,
    cache_gib: float | None,
    exact: bool,
    **settings: Any,
) -> None:
    """Serve models over HTTP, as OpenAI's and DeepSeek's APIs do.

    MODELS are run directories, checkpoints, directories in Hugging Face format,
    or GGUF files; without any, the small model that comes along is served. The
    first is opened at once, the others when they are asked for; a run's
    checkpoints are asked for as RUN@STAGE.
    """
    if new_key:
        _make_key(api_key_file, key_name)
        return
    named = _aliases(aliases)
    if engine == "vllm" and (len(models) > 1 or form or speculation or cache_gib or exact):
        raise click.UsageError(
            "--engine vllm serves one model, as that server was started: "
            "no --format, --speculation, --cache-gib or --exact."
        )
    if engine == "vllm" and not models:
        raise click.UsageError("Missing argument 'MODEL': whose tokenizer that server's model has.")

    from clearseek.config.places import data_directory
    from clearseek.config.server import Server
    from clearseek.config.shipped import shipped_model
    from clearseek.serve import run
    from clearseek.serve.keys import Keys, read_keys
    from clearseek.serve.logs import write_logs
    from clearseek.serve.open import How
    from clearseek.serve.outbound import refuse_outbound

    settings["hosts"] = settings.pop("allow_host")
    settings["history"] = settings["history"] or data_directory()
    wanted = Server(**settings)
    keys = read_keys(api_key_file) if api_key_file is not None else Keys(())
    run.check_address(wanted, keys)
    write_logs(wanted.log)
    refuse_outbound([urlsplit(vllm_url).hostname or ""] if engine == "vllm" else [])
    if engine == "vllm":
        registry = _vllm(models[0], vllm_url, named)
    else:
        how = How(device, form, speculation, cache_gib, exact or None)
        registry = _ours(models or (str(shipped_model()),), wanted, how, named)
    run.serve(
        wanted,
        registry,
        lambda address: click.echo(f"serving {', '.join(registry.names)} at {address}"),
        keys,
    )


def _aliases(words: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        alias, sign, model = word.partition("=")
        if not (alias and sign and model):
            raise click.UsageError(f"--alias {word}: it is NAME=MODEL, such as gpt-4o=r1-mini.")
        if found.setdefault(alias, model) != model:
            raise click.UsageError(f"--alias {alias} is given for {found[alias]} and for {model}.")
    return found


def _ours(models: tuple[str, ...], settings: "Server", how: "How", aliases: dict[str, str]) -> "Registry":
    from clearseek.serve.open import find_sources
    from clearseek.serve.registry import Registry

    registry = Registry((), aliases, find_sources(models, settings, how), settings.max_models)
    registry.open_first()
    return registry


def _vllm(model: str, url: str, aliases: dict[str, str]) -> "Registry":
    from clearseek.config.engine import Vllm
    from clearseek.serve.open import open_vllm
    from clearseek.serve.registry import Registry

    return Registry([open_vllm(model, Vllm(kind="vllm", url=url))], aliases)


def _make_key(path: Path | None, name: str) -> None:
    if path is None:
        raise click.UsageError("--new-key needs --api-key-file FILE, where the key's hash is kept.")
    from clearseek.serve.keys import new_key

    key = new_key(path, name)
    click.echo(key)
    click.echo(f"Keep it: it is shown this once. Its hash is in {path}.", err=True)
