"""The application: every route, and errors in one shape."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from clearseek import __version__
from clearseek.config.errors import InputError, RunError
from clearseek.config.server import Server
from clearseek.serve import (
    anthropic_messages,
    deepseek,
    embeddings,
    models,
    openai_chat,
    openai_completions,
    operations,
    responses,
    tokens,
)  # fmt: skip
from clearseek.serve.bodies import Bodies
from clearseek.serve.errors import ApiError, RefusedHistory, as_api_error
from clearseek.serve.invalid import invalid
from clearseek.serve.keys import Keys
from clearseek.serve.logs import Logged
from clearseek.serve.page import answers, conversations, keeping, site, tracing
from clearseek.serve.paths import is_deepseek
from clearseek.serve.registry import Registry
from clearseek.serve.security import Guard
from clearseek.serve.state import State
from clearseek.serve.streaming import JsonResponse


def create_app(settings: Server, registry: Registry, keys: Keys | None = None) -> FastAPI:
    """A server of these models, for any ASGI server to run. With `keys` it answers to those alone."""
    app = FastAPI(title="clearseek", version=__version__, docs_url=None, redoc_url=None)
    app.state.parts = State(settings, registry)
    for part in (
        operations,
        models,
        openai_chat,
        anthropic_messages,
        openai_completions,
        responses,
        tokens,
        embeddings,
        deepseek,
    ):
        app.include_router(part.router)
    for part in (conversations, answers, keeping, tracing, site):
        app.include_router(part.router, include_in_schema=False)  # the page's own, which changes with it
    # the last one added sees a request first
    app.add_middleware(
        Bodies,
        most_bytes=settings.max_body_bytes,
        seconds=settings.body_seconds,
        by_path={conversations.IMPORT: settings.max_import_bytes},
    )
    app.add_middleware(Guard, keys=keys or Keys(()), hosts=settings.hosts, public=site.PATHS)
    app.add_middleware(Logged)
    for kind in (ApiError, InputError, RunError):
        app.add_exception_handler(kind, _failed)
    for wrong in (RequestValidationError, ValidationError):
        app.add_exception_handler(wrong, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    return app


def _respond(error: ApiError, request: Request) -> Response:
    return JsonResponse(error.body_at(request.url.path), error.status, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    told = as_api_error(error)
    if is_deepseek(request.url.path) and not isinstance(told, RefusedHistory):
        told.status = {400: 422, 404: 400}.get(told.status, told.status)
    return _respond(told, request)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = ApiError(error.status_code, str(error.detail), headers=error.headers)
    return _respond(told, request)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError | ValidationError)
    told = invalid(error)
    if is_deepseek(request.url.path) and told.code != "invalid_json":
        told.status = 422
    return _respond(told, request)
