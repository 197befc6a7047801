"""Errors in OpenAI's shape. Their messages never quote the request."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

RETRY = {"Retry-After": "1"}


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


def install(app: FastAPI) -> None:
    """Make every error that the routes or the framework raise an ``ErrorResponse``."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected_error)


async def _on_api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error.response


async def _on_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    # Of the field's path only names of the schema: those of a JSON syntax error are of the request.
    field_path = [str(part) for part in first["loc"][1:] if first["type"] != "json_invalid"]
    param = field_path[0][:60] if field_path else None
    return ApiError(400, f"{'.'.join(field_path)[:100]}: {first['msg']}".removeprefix(": "), param=param, code=first["type"]).response


async def _on_http_exception(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    messages = {404: "There is nothing at this path.", 405: "This path does not take this method."}
    message = messages.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, message, headers=dict(error.headers or {})).response


async def _on_unexpected_error(*_: Any) -> JSONResponse:
    return internal_error().response
