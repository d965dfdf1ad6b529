"""Requests to the Hub: bounded waits, the token for the endpoint only, and every refusal as one line."""

import http.client
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlsplit

from clearseek.config.errors import InputError, RunError

DEFAULT_ENDPOINT = "https://huggingface.co"
TIMEOUT_SECONDS = 30.0  # without a single byte
_MOST_ANSWER_BYTES = 64 * 2**20
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Broken(Exception):
    """A connection that failed or stalled; asking again may help."""


@dataclass(frozen=True, slots=True)
class Hub:
    """An endpoint and the token that is sent to it, and nowhere else."""

    endpoint: str
    token: str | None = None
    timeout_seconds: float = TIMEOUT_SECONDS

    @classmethod
    def of_environment(cls) -> "Hub":
        """The endpoint of HF_ENDPOINT, such as a mirror's, and the token of HF_TOKEN.

        Raises InputError for an endpoint that is no web address, or that a token would reach unencrypted.
        """
        endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        token = os.environ.get("HF_TOKEN") or None
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"HF_ENDPOINT = {endpoint!r} is not a web address, such as {DEFAULT_ENDPOINT}")
        if token and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise InputError(f"HF_TOKEN would travel unencrypted to {endpoint}; use https, or unset HF_TOKEN")
        return cls(endpoint, token)

    def repository(self, name: str, revision: str) -> dict[str, Any]:
        """What the Hub says of a model repository, its files with sizes and hashes among it.

        Raises InputError where there is no such repository or it is closed to us, RunError where the Hub can't be
        reached or answers something else.
        """
        place = f"{name} at {revision}"
        url = f"{self.endpoint}/api/models/{quote(name)}/revision/{quote(revision, safe='')}?blobs=true"
        try:
            with self.open(url, place) as answer:
                raw = answer.read(_MOST_ANSWER_BYTES)
        except (Broken, TimeoutError, http.client.HTTPException, OSError) as error:
            raise RunError(
                f"{self.endpoint} can't be reached ({reason(error)}); check the network"
            ) from error
        try:
            found = json.loads(raw)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("siblings"), list):
            raise RunError(f"{self.endpoint} does not answer as the Hugging Face Hub does; check HF_ENDPOINT")
        return found

    def file_url(self, name: str, revision: str, path: str) -> str:
        """Where a file of a repository is."""
        return f"{self.endpoint}/{quote(name)}/resolve/{quote(revision, safe='')}/{quote(path)}"

    def open(self, url: str, place: str, headers: dict[str, str] | None = None) -> Any:
        """The answer to a request, to be read and closed; no read of it waits longer than the timeout.

        Raises InputError for what is not there or closed to us (`place` names it), Broken for what may pass.
        """
        sent = {
            "User-Agent": f"clearseek/{version('clearseek')}",
            "Accept-Encoding": "identity",
            **(headers or {}),
        }
        request = urllib.request.Request(url, headers=sent)
        if self.token:
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        opener = urllib.request.build_opener(_Redirects)
        try:
            return opener.open(request, timeout=self.timeout_seconds)
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refusal(error, place) from error
        except (OSError, http.client.HTTPException) as error:
            raise Broken(reason(error)) from error

    def _refusal(self, error: urllib.error.HTTPError, place: str) -> Exception:
        code = error.headers.get("X-Error-Code", "")
        if code == "GatedRepo" or (error.code == 403 and code != "RepoNotFound"):
            return InputError(
                f"{place}: is gated; accept its terms at {self.endpoint} and set HF_TOKEN to a token that may read it"
            )
        if error.code in (401, 404):
            what = (
                "revision"
                if code == "RevisionNotFound"
                else "file"
                if code == "EntryNotFound"
                else "repository"
            )
            private = "" if self.token else ", or it is private: set HF_TOKEN"
            return InputError(
                f"{place}: no such {what} on {self.endpoint}{private if what == 'repository' else ''}"
            )
        return Broken(f"HTTP {error.code} {error.reason}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect, but never from an encrypted connection to a plain one."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request that a redirect asks for; the token is not in it."""
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise Broken(f"redirected to an unencrypted address, {urlsplit(newurl).netloc}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def reason(error: BaseException) -> str:
    """Why a connection failed, in a few words."""
    inner = getattr(error, "reason", None) or error
    if isinstance(inner, TimeoutError):
        return "nothing came in time"
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return " ".join(str(text).split())[:200]
