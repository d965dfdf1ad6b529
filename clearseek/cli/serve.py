"""`clearseek serve`: models over HTTP."""

from pathlib import Path

import click

from clearseek.cli.options import device_option

EPILOG = """\b
Example:
  clearseek serve runs/r1-mini

\b
Then, with any client of OpenAI's API:
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "12 + 5?"}]}'

Exit codes: 0 ended, 1 failed, 2 a model or an option is wrong."""


@click.command("serve", epilog=EPILOG)
@click.argument("models", nargs=-1, required=True, type=click.Path())
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one."
)
@device_option
def command(models: tuple[str, ...], port: int, device: str) -> None:
    """Serve models over HTTP, as OpenAI's and DeepSeek's APIs do.

    MODELS are run directories, checkpoints, directories in Hugging Face format,
    or GGUF files.
    """
    from clearseek.config.server import Server
    from clearseek.serve.open import open_model
    from clearseek.serve.registry import Registry
    from clearseek.serve.run import serve

    settings = Server(port=port)
    registry = Registry([open_model(Path(model).resolve().name, model, settings, device) for model in models])
    serve(settings, registry, lambda address: click.echo(f"serving {', '.join(registry.names)} at {address}"))
