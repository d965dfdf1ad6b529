"""A local server that plays the Hub: its listing, redirects to another host, connections that break or stall."""

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves one repository, `org/name`, whose `files` are content by path.

    `breaks` ends the first so many downloads after half of what is left; `stalls` holds them there for that many
    seconds. `requests` lists (host asked, path, Range, Authorization) of everything that was asked.
    """

    def __init__(
        self, files: dict[str, bytes], *, breaks: int = 0, stalls: float = 0, ranges: bool = True
    ) -> None:
        self.files, self.breaks, self.stalls, self.ranges = files, breaks, stalls, ranges
        self.listing: dict | None = None
        self.refusal: tuple[int, str] | None = None
        self.requests: list[tuple[str, str, str | None, str | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "FakeHub":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def cdn(self) -> str:
        return f"http://localhost:{self._server.server_port}"

    def asked(self, path: str) -> list[tuple[str, str, str | None, str | None]]:
        return [request for request in self.requests if request[1].endswith(path)]

    def repository(self) -> dict:
        if self.listing is not None:
            return self.listing
        return {"id": "org/name", "sha": COMMIT, "siblings": [_entry(*item) for item in self.files.items()]}


def _entry(path: str, content: bytes) -> dict:
    """Weights are listed with their sha256, small files with git's id."""
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    entry = {"rfilename": path, "size": len(content), "blobId": blob}
    if path.endswith((".safetensors", ".gguf", ".bin")):
        entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    return entry


def _handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            host = self.headers["Host"].partition(":")[0]
            path = unquote(urlsplit(self.path).path)
            wanted = self.headers.get("Range"), self.headers.get("Authorization")
            hub.requests.append((host, path, *wanted))
            if hub.refusal:
                self._refuse(*hub.refusal)
            elif path.startswith("/api/models/org/name/revision/"):
                self._send(200, json.dumps(hub.repository()).encode())
            elif path.startswith(f"/org/name/resolve/{COMMIT}/"):
                self.send_response(302)
                self.send_header("Location", f"{hub.cdn}/cdn/{path.partition(COMMIT + '/')[2]}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif path.startswith("/cdn/"):
                self._file(hub.files[path.removeprefix("/cdn/")])
            else:
                self._refuse(401, "RepoNotFound")

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _file(self, content: bytes) -> None:
            asked = self.headers.get("Range") if hub.ranges else None
            rest = content[int(asked.removeprefix("bytes=").rstrip("-")) :] if asked else content
            if asked and not rest:
                self._refuse(416, "")
            elif hub.breaks:
                self._break(206 if asked else 200, rest)
            else:
                self._send(206 if asked else 200, rest)

        def _break(self, status: int, content: bytes) -> None:
            hub.breaks -= 1
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            time.sleep(hub.stalls)
            self.close_connection = True

    return Handler
