"""Bodies of requests: read as a whole within bounds, and looked at before a parser sees them."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clearseek.serve.errors import ApiError
from clearseek.serve.streaming import JsonResponse

_DEEPEST = 100  # lists and objects within another
_LONGEST_NUMBER = 400  # characters; a double's own digits are at most 309 before the point
# one that doesn't end reaches to the end: so no text is read twice
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NUMBER = re.compile(rb"(?<![0-9.eE+-])[0-9.eE+-]{%d,}" % _LONGEST_NUMBER)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


class Bodies:
    """Gives `app` bodies of at most `most_bytes` that arrived within `seconds`; JSON only if it is sound.

    `by_path` has other bounds for some paths.
    """

    def __init__(
        self, app: ASGIApp, most_bytes: int, seconds: float, by_path: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        self.app, self.most_bytes, self.seconds, self.by_path = app, most_bytes, seconds, by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read one request's body and hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
            if body is None:
                return  # who asked has gone
            if _is_json(scope):
                check_json(body)
        except ApiError as error:
            headers = {**error.headers, "Connection": "close"}  # the rest of the body may still come
            await JsonResponse(error.body_at(scope["path"]), error.status, headers)(scope, receive, send)
            return
        await self.app(scope, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        most_bytes = self.by_path.get(scope["path"], self.most_bytes)
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if not said.isdigit() or int(said[:20]) > most_bytes:
            raise _too_large(most_bytes)
        pieces, size = [], 0
        try:
            async with asyncio.timeout(self.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    if size > most_bytes:
                        raise _too_large(most_bytes)
                    if not message.get("more_body", False):
                        return b"".join(pieces)
        except TimeoutError:
            raise ApiError(408, f"the body did not arrive within {self.seconds:g} s") from None


def _too_large(most_bytes: int) -> ApiError:
    return ApiError(
        413,
        f"the body is larger than {most_bytes} bytes",
        code="request_too_large",
        values={"n": most_bytes // 2**20},
    )


def check_json(body: bytes) -> None:
    """`ApiError` for text that is no UTF-8, nests too deep, or holds what is no number or half a character."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8 (at byte {error.start})") from None
    if body.count(b"{") + body.count(b"[") > _DEEPEST and any(d > _DEEPEST for d in _depths(body)):
        raise ApiError(400, f"the body nests lists and objects more than {_DEEPEST} deep")
    if _NUMBER.search(_STRING.sub(b"", body)) if _NUMBER.search(body) else False:
        raise ApiError(400, f"the body holds a number of more than {_LONGEST_NUMBER} characters")
    if b"NaN" in body or b"Infinity" in body or _HALF_CHARACTER.search(body):
        _parse_strictly(body)


def _depths(body: bytes) -> Iterator[int]:
    depth = 0
    for character in _STRING.sub(b"", body).translate(None, _NO_BRACKETS):
        if character in b"[{":
            depth += 1
            yield depth
        elif character in b"]}":
            depth -= 1


def _parse_strictly(body: bytes) -> None:
    def refuse(name: str) -> None:
        raise ApiError(400, f"the body holds {name}, which JSON has not")

    try:
        value = json.loads(body, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ApiError(400, "the body holds half a character (a lone surrogate)") from None
    except ValueError:
        return  # the route's parser says what is wrong


def _is_json(scope: Scope) -> bool:
    kind = dict(scope["headers"]).get(b"content-type", b"").partition(b";")[0].strip().lower()
    return kind == b"application/json" or kind.endswith(b"+json")


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def replayed() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
