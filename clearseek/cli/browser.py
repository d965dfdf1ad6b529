"""`clearseek chat` in the browser: a server for one person, and a window on it."""

import logging
import os
import socket
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

_PORT = 8642  # the same one each time, so that the browser remembers language and appearance


def chat_in_browser(
    models: Sequence[str],
    history: Path | None,
    opens: bool,
    how: Mapping[str, Any],
    sampling: Mapping[str, Any],
) -> None:
    """Serve `models` on this machine alone until Ctrl-C, opened as `How` says.

    `sampling` is what the page's conversations begin with.
    """
    from clearseek.config.places import data_directory
    from clearseek.config.server import Server
    from clearseek.serve import run
    from clearseek.serve.logs import write_logs
    from clearseek.serve.open import How, find_sources
    from clearseek.serve.outbound import refuse_outbound
    from clearseek.serve.page.site import is_built, not_built
    from clearseek.serve.registry import Registry, Source
    from clearseek.serve.served_model import ServedModel

    if not is_built():
        raise click.UsageError(f"{not_built()} In the terminal: clearseek chat --terminal.")
    settings = Server(
        port=_free_port(),
        history=history or data_directory(),
        max_running=8,
        drain_seconds=2,
    )
    write_logs("text")
    logging.getLogger("clearseek").setLevel(logging.WARNING)
    sources = find_sources(models, settings, How(**how))

    def opened(source: Source) -> ServedModel:
        model = source.open()
        return replace(model, defaults={**model.defaults, **sampling})

    registry = Registry(
        sources=[replace(one, open=partial(opened, one)) for one in sources], most_open=settings.max_models
    )
    registry.open_first()

    def ready(address: str) -> None:
        click.echo(f"{', '.join(registry.names)} at {address}  (Ctrl-C ends)")
        if opens and _has_display():
            webbrowser.open(address)

    refuse_outbound()
    run.serve(settings, registry, ready)


def _free_port() -> int:
    """Ours if nobody listens there, else any."""
    with socket.socket() as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", _PORT))
        except OSError:
            return 0
    return _PORT


def _has_display() -> bool:
    """Whether a window can be opened; a browser in this terminal would be in the way."""
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
