"""Opens a model for serving: weights, tokenizer, an engine in its thread."""

from pathlib import Path

from clearseek.config.server import Server
from clearseek.engine.session import open_session
from clearseek.serve.engine_service import EngineService
from clearseek.serve.served_model import ServedModel


def open_model(
    name: str,
    source: str,
    settings: Server,
    device: str = "auto",
    form: str | None = None,
    speculation: str | None = None,
) -> ServedModel:
    """A run, one of its checkpoints, a Hugging Face directory or a GGUF file. InputError as `open_session`."""
    session = open_session(source, device, form, speculation, settings.max_running)
    service = EngineService(session.engine, session.tokenizer, settings.max_waiting)
    context = min(session.model.config.max_position_embeddings, session.engine.most_tokens)
    return ServedModel(name, session.tokenizer, service, context, session.defaults, root=str(Path(source)))
