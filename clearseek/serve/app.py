"""The application: every route, and errors in one shape."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from clearseek import __version__
from clearseek.config.errors import InputError, RunError
from clearseek.config.server import Server
from clearseek.serve import models, openai_chat, operations
from clearseek.serve.errors import ApiError
from clearseek.serve.registry import Registry
from clearseek.serve.state import State
from clearseek.serve.streaming import JsonResponse


def create_app(settings: Server, registry: Registry) -> FastAPI:
    """A server of these models, for any ASGI server to run."""
    app = FastAPI(title="clearseek", version=__version__, docs_url=None, redoc_url=None)
    app.state.parts = State(settings, registry)
    for part in (operations, models, openai_chat):
        app.include_router(part.router)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(InputError, _input_error)
    app.add_exception_handler(RunError, _run_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    return app


def _respond(error: ApiError) -> Response:
    return JsonResponse(error.body, error.status, error.headers)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _respond(error)


async def _input_error(request: Request, error: Exception) -> Response:
    return _respond(ApiError(400, str(error)))


async def _run_error(request: Request, error: Exception) -> Response:
    return _respond(ApiError(500, str(error), "server_error"))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = ApiError(error.status_code, str(error.detail), headers=error.headers)
    return _respond(told)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    message = f"{place}: {first['msg']}" if place else str(first["msg"])
    return _respond(ApiError(400, message, param=place or None))
