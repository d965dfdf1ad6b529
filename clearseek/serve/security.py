"""Who may ask: programs on this machine and the page that this server gave out, nobody's page from elsewhere.

A web page on another origin must be able neither to read nor to write, even where its name was made to mean this
machine (DNS rebinding): so the `Host` has to be one of ours, an `Origin` has to be the same, and what browsers say of
a request's site is believed. There are no CORS headers at all.
"""

from collections.abc import Iterable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clearseek.serve.errors import ApiError
from clearseek.serve.keys import Keys
from clearseek.serve.streaming import JsonResponse

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_OPEN = ("/health", "/ready")  # without a key
_SIMPLE_TYPES = (
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/plain",
)  # sent without a preflight
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "style-src-attr 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
}


class Guard:
    """Lets a request through to `app`, or answers it with an error; adds the headers of a careful server.

    `hosts` are names besides the loopback's that the server answers to. Paths in `public` (beginnings) need no key.
    The key's owner is in the request's state as `client`.
    """

    def __init__(
        self, app: ASGIApp, keys: Keys, hosts: Iterable[str] = (), public: tuple[str, ...] = ()
    ) -> None:
        self.app, self.keys, self.hosts, self.public = app, keys, tuple(hosts), (*_OPEN, *public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except ApiError as error:
            await JsonResponse(error.body_at(scope["path"]), error.status, error.headers)(
                scope, receive, _careful(send)
            )
            return
        await self.app(scope, receive, _careful(send))

    def _check(self, scope: Scope) -> None:
        headers = _headers(scope)
        host = headers.get("host", "")
        self._check_host(host, scope)
        _check_site(headers, host, scope)
        _check_type(headers, scope["method"])
        scope.setdefault("state", {})["client"] = self._client(headers, scope["path"])

    def _check_host(self, host: str, scope: Scope) -> None:
        port = (scope.get("server") or ("", None))[1]
        ours = {f"{name}:{port}" for name in _LOOPBACK} | set(self.hosts)
        ours |= {f"{name}:{port}" for name in self.hosts} | (set(_LOOPBACK) if port == 80 else set())
        if host.lower() not in ours:
            raise ApiError(421, f"this server is not {host!r}; a name of its own is given by --allow-host")

    def _client(self, headers: Mapping[str, str], path: str) -> str:
        if not self.keys or any(path == one or path.startswith(one + "/") for one in self.public):
            return ""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = given.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        owner = self.keys.owner(key) if key else None
        if owner is None:
            raise ApiError(
                401,
                "this server needs an API key: Authorization: Bearer KEY"
                if not key
                else "the API key is not known",
                "authentication_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return owner


def _headers(scope: Scope) -> dict[str, str]:
    """By name; one that comes twice and has to be single is none at all."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1")
        if key in found and key in ("host", "origin", "authorization", "x-api-key", "content-type"):
            raise ApiError(400, f"the header {key} comes twice")
        found[key] = value.decode("latin-1")
    return found


def _check_site(headers: Mapping[str, str], host: str, scope: Scope) -> None:
    """403 for what a browser asks on behalf of a page from elsewhere; following a link to us is not that."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    is_visit = (
        scope["method"] == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        raise ApiError(403, f"a page from {origin!r} may not ask this server")
    if site not in (None, "same-origin", "none") and not is_visit:
        raise ApiError(403, f"a page from elsewhere ({site}) may not ask this server")


def _check_type(headers: Mapping[str, str], method: str) -> None:
    """415 for what a form of any page could send without being asked first."""
    if method in ("GET", "HEAD", "OPTIONS", "DELETE"):
        return
    if headers.get("content-length") == "0" or not ({"content-length", "transfer-encoding"} & set(headers)):
        return
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind or kind in _SIMPLE_TYPES:
        raise ApiError(
            415, "the header Content-Type has to be application/json", code="unsupported_media_type"
        )


def _careful(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message.get("headers", [])}
            extra = [(name, value) for name, value in _HEADERS.items() if name not in given]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return sending
