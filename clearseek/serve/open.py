"""Opens models for serving: the tokenizer here, weights and engine in a process of their own."""

import logging
import os
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clearseek.config.engine import Vllm
from clearseek.config.errors import InputError, InputWarning, RunError
from clearseek.config.server import Server
from clearseek.engine.vllm_server import Lost, VllmServer
from clearseek.model.gguf.header import is_gguf
from clearseek.model.resolve import is_model_directory, resolve_source
from clearseek.serve.engine_line import ProcessLine
from clearseek.serve.engine_process import Opening
from clearseek.serve.engine_service import EngineService
from clearseek.serve.registry import Source
from clearseek.serve.served_model import ServedModel
from clearseek.serve.vllm_service import VllmService
from clearseek.text.tokenizer import Tokenizer

_LOG = logging.getLogger(__name__)
_ASK_SECONDS = 30.0
_CACHE_BYTES = 256 << 20  # and what else a model takes besides its weights


@dataclass(frozen=True)
class How:
    """How models are opened, as `open_session` takes it."""

    device: str = "auto"
    form: str | None = None
    speculation: str | None = None
    cache_gib: float | None = None
    exact: bool | None = None


def find_sources(models: Sequence[str], settings: Server, how: How) -> list[Source]:
    """What can be asked for: every model by its name, and a run's checkpoints as RUN@STAGE besides.

    InputError where there is no such model, or two have the same name.
    """
    found: dict[str, Path] = {}
    for model in models:
        path = resolve_source(Path(model))
        name = Path(model).resolve().name
        if name in found:
            raise InputError(
                f"{model}: another model is called {name} already; rename one of the directories"
            )
        found[name] = path
        found |= {f"{name}@{stage.name}": stage for stage in _checkpoints(Path(model))}
    return [
        Source(
            name,
            partial(open_model, name, path, settings, how),
            _weight_bytes(path) + _CACHE_BYTES,
            str(path),
        )
        for name, path in found.items()
    ]


def opening_of(path: Path, settings: Server, how: How) -> Opening:
    """What a process is told that opens a model."""
    of_server = settings.max_running, settings.log
    return Opening(str(path), how.device, how.form, how.speculation, *of_server, how.cache_gib, how.exact)


def open_model(name: str, source: Path | str, settings: Server, how: How = How()) -> ServedModel:
    """A run, one of its checkpoints, a Hugging Face directory or a GGUF file. InputError as `open_session`."""
    path = resolve_source(Path(source))
    line = ProcessLine(opening_of(path, settings, how))
    try:
        tokenizer = _tokenizer(path)
        facts = line.facts()
    except BaseException:
        line.close(0)
        raise
    for warning in facts.warnings:
        warnings.warn(warning, InputWarning, stacklevel=2)
    gib = facts.cache_bytes / 2**30
    _LOG.info("%s: a context of %d tokens, a cache of at most %.3g GiB", name, facts.context, gib)
    service = EngineService(line, tokenizer, settings.max_waiting)
    return ServedModel(
        name, tokenizer, service, facts.context, facts.defaults, root=str(source), device=facts.device
    )


def open_vllm(model: str, vllm: Vllm) -> ServedModel:
    """A model that a vLLM server serves; its tokenizer is read here. InputError or RunError where it isn't there."""
    from clearseek.engine.defaults import default_settings
    from clearseek.model.source import tokenizer_directory

    path = resolve_source(Path(model))
    with tokenizer_directory(path) as files:
        tokenizer, defaults = Tokenizer.load(files), default_settings(files)
    server = VllmServer(vllm.url, os.environ.get("VLLM_API_KEY") or None)
    try:
        card = server.ask("/v1/models", _ASK_SECONDS)["data"][0]
        name, context = str(card["id"]), int(card["max_model_len"])
    except (Lost, KeyError, TypeError, IndexError) as error:
        raise RunError(
            f"no vLLM at {vllm.url} ({error}); start it with: vllm serve {shlex.quote(model)}"
        ) from None
    service = VllmService(vllm, name, tokenizer)
    return ServedModel(Path(model).resolve().name, tokenizer, service, context, defaults, root=str(path))


def _tokenizer(source: Path) -> Tokenizer:
    if not is_gguf(source):
        return Tokenizer.load(source)
    from clearseek.model.source import tokenizer_directory  # with torch

    with tokenizer_directory(source) as files:
        return Tokenizer.load(files)


def _checkpoints(run: Path) -> list[Path]:
    """A run's, the oldest first."""
    folder = run / "checkpoints"
    if not folder.is_dir() or is_model_directory(run):
        return []
    return sorted(
        filter(is_model_directory, folder.iterdir()), key=lambda path: (path.stat().st_mtime, path.name)
    )


def _weight_bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))
