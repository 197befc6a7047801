"""Errors in OpenAI's shape. Their messages never quote the request."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from serve.rollout import ModelWithdrawn

RETRY = {"Retry-After": "1"}
_KEYED = frozenset({"logit_bias"})  # objects of which requests choose the keys


class ErrorDetail(BaseModel):
    """OpenAI's fields of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """The body of every error."""

    error: ErrorDetail


# For the API's description, of every route.
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorResponse, "description": "The request cannot be answered, or not now."},
    "5XX": {"model": ErrorResponse, "description": "The server cannot answer."},
}


class ApiError(Exception):
    """An error for the client: HTTP status, message, the request's field that it concerns, and a code for programs."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON; OpenAI's ``type`` follows from the status."""
        types = {401: "authentication_error", 429: "rate_limit_error"}
        error_type = types.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": error_type, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        """The error as an HTTP response with its status and headers."""
        return JSONResponse(self.body, self.status, self.headers)


def queue_full() -> ApiError:
    """429 with ``Retry-After``: too many requests wait."""
    return ApiError(429, "Too many requests wait; try again soon.", code="full", headers=RETRY)


def unavailable(message: str) -> ApiError:
    """503 with ``Retry-After``: shutdown, a change of version, too many connections, or no token in time."""
    return ApiError(503, message, code="unavailable", headers=RETRY)


def internal_error() -> ApiError:
    """500, without the cause, which may quote the request."""
    return ApiError(500, "The server failed on this request.", code="failed")


def install(app: FastAPI, fields: Collection[str]) -> None:
    """Make every error that the routes or the framework raise an ``ErrorResponse``.

    ``fields``: the names that requests may have. Messages name no others, which would be of the request.
    """
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(ModelWithdrawn, _on_withdrawn)
    app.add_exception_handler(RequestValidationError, partial(_on_validation_error, frozenset(fields)))
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected_error)


async def _on_api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error.response


async def _on_withdrawn(*_: Any) -> JSONResponse:
    return ApiError(404, "This model is withdrawn now; /readyz says more.", param="model", code="model_not_found").response


async def _on_validation_error(fields: Collection[str], _: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # Of a field that may have several types, the error that lies deepest: of the type that the request means.
    errors = [(_path(problem["loc"], fields), problem) for problem in error.errors()]
    path, problem = max(errors, key=lambda pair: len(pair[0]))
    message = str(problem["msg"]).removeprefix("Value error, ")
    where = ".".join(path)
    return ApiError(400, f"{where}: {message}" if where else message, param=path[0] if path else None, code=problem["type"]).response


def _path(location: Sequence[int | str], fields: Collection[str]) -> list[str]:
    """The path of a field: names and indices, up to what is neither, such as a type or a word of the request."""
    path: list[str] = []
    for part in location[1:]:
        if isinstance(part, int) and not path:  # a place in JSON that is not valid
            break
        if isinstance(part, str) and part not in fields:
            if path and path[-1] in _KEYED:
                break
            continue
        path.append(str(part))
    return path


async def _on_http_exception(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    messages = {404: "There is nothing at this path.", 405: "This path does not take this method."}
    message = messages.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, message, headers=dict(error.headers or {})).response


async def _on_unexpected_error(*_: Any) -> JSONResponse:
    return internal_error().response
