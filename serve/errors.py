"""Errors in OpenAI's shape. What was asked is never in their words."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

RETRY = {"Retry-After": "1"}


class Told(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Failure(BaseModel):
    """The body of every error."""

    error: Told


# For the API's description, of every route.
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Failure, "description": "What was asked cannot be answered, or not now."},
    "5XX": {"model": Failure, "description": "The server cannot answer."},
}


class ApiError(Exception):
    """What a client is told: a status, words, the parameter that they are about, a code that programs read."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    @property
    def body(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def full() -> ApiError:
    return ApiError(429, "Too many requests wait; try again soon.", code="full", headers=RETRY)


def unavailable(why: str) -> ApiError:
    return ApiError(503, why, code="unavailable", headers=RETRY)


def failed() -> ApiError:
    return ApiError(500, "The server failed on this request.", code="failed")


def install(app: FastAPI) -> None:
    """Every error that the routes or the framework raise leaves in this shape."""

    async def ours(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return error.response

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = error.errors()[0]
        # Of a place only names of our own: an unknown field's name may be anything.
        where = [str(part) for part in found["loc"][1:] if found["type"] != "json_invalid"]
        param = where[0][:60] if where else None
        return ApiError(400, f"{'.'.join(where)[:100]}: {found['msg']}".removeprefix(": "), param=param, code=found["type"]).response

    async def of_the_framework(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        words = {404: "There is nothing at this path.", 405: "This path does not take this method."}
        return ApiError(error.status_code, words.get(error.status_code, str(error.detail)), headers=dict(error.headers or {})).response

    async def unknown(*_: Any) -> JSONResponse:
        return failed().response

    app.add_exception_handler(ApiError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, of_the_framework)
    app.add_exception_handler(Exception, unknown)
