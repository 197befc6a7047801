"""Connections of uvicorn with limits that it has not: how many are open, and how long the head of a request may take."""

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from serve.errors import ApiError, unavailable


class Connection(H11Protocol):
    seconds = 10.0  # from the first sign of a request to the end of its head
    most = 512  # open at the same time; the next is told to come again, and closed

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.write(_raw(unavailable("Too many connections are open.")))
            transport.close()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._timer:
            self._timer.cancel()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:  # the head has come
            if self._timer:
                self._timer.cancel()
            self._timer = None
        elif not self._timer:
            self._timer = self.loop.call_later(self.seconds, self.transport.close)


def _raw(error: ApiError) -> bytes:
    """An answer of which nothing was asked yet."""
    answer = error.response
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode(), b"connection: close"]
    return b"\r\n".join([*lines, *(name + b": " + value for name, value in answer.raw_headers), b"", bytes(answer.body)])
