"""What goes wrong, as a client is told it: a status, and OpenAI's error object (which DeepSeek's service has, too)."""

from collections.abc import Mapping
from typing import Any

from clearseek.config.errors import InputError, RunError
from clearseek.engine.request import Completion
from clearseek.serve.paths import is_anthropic, is_page

_ANTHROPIC = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class KnownMistake(InputError):
    """A mistake of the user's that the page says in its reader's words: by `code`, with `values` filled in."""

    def __init__(self, code: str, message: str, **values: str | int) -> None:
        super().__init__(message)
        self.code, self.values = code, values


class KnownFailure(RunError):
    """A failure of ours that the page says in its reader's words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["KnownFailure"], tuple[str, str]]:
        """How it crosses from the engine's process."""
        return type(self), (self.code, str(self))


class LacksMemory(RunError):
    """A model that could be opened if there were more memory."""


class ApiError(Exception):
    """One answer that is an error. `param` is the field that is wrong, `code` a word for programs.

    `values` are what the page fills into its own words for `code`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        values: Mapping[str, str | int] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type, self.param, self.code = status, message, type, param, code
        self.headers, self.values = dict(headers or {}), dict(values or {})

    def body_at(self, path: str) -> dict[str, Any]:
        """The JSON that says it to who asked `path`."""
        if is_page(path):
            return {"error": {**self.body["error"], "values": self.values}}
        return self.anthropic_body if is_anthropic(path) else self.body

    @property
    def written(self) -> str:
        """How it is kept beside an answer: by its code, where the page needs no values to say it; else in words."""
        return self.code if self.code and not self.values else self.message

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that says it."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def anthropic_body(self) -> dict[str, Any]:
        """The same in Anthropic's shape."""
        kind = _ANTHROPIC.get(self.status, "api_error" if self.status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": self.message}}


class RefusedHistory(ApiError):
    """A conversation that DeepSeek's service refuses; with 400, at its own base URL, too."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(400, message, param=param)


class Busy(ApiError):
    """Too much is waiting already."""

    def __init__(self, message: str, seconds: int = 1) -> None:
        super().__init__(
            429,
            message,
            "rate_limit_error",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(seconds)},
        )


class Ending(ApiError):
    """The server is ending and takes nothing new."""

    def __init__(self) -> None:
        super().__init__(
            503,
            "the server is shutting down",
            "service_unavailable",
            code="server_ending",
            headers={"Retry-After": "5"},
        )


def as_api_error(error: Exception) -> ApiError:
    """Ours and the rooms' below as a client is told them."""
    if isinstance(error, ApiError):
        return error
    code = getattr(error, "code", None)
    if isinstance(error, InputError):
        return ApiError(400, str(error), code=code, values=getattr(error, "values", None))
    return ApiError(500, str(error), "server_error", code=code)


def of_completion(completion: Completion) -> ApiError:
    """What ended one sample: its own constraint, which is the client's to change, or the model's scores."""
    said = completion.error or ""
    return ApiError(400, said) if completion.blames_request else ApiError(500, said, "server_error")
