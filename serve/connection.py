"""Connections of uvicorn with limits that it has not: how many are open, how long the head of a request may take, and which framing
of a request is taken.

Where a request ends must be beyond doubt: what a proxy before this server takes for a body and this server for a request is a request
that nobody looked at (request smuggling; RFC 9112, sections 2.2, 5.2, 6.1, 6.3 and 11.2).
"""

import asyncio
import re
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from serve.errors import ApiError, unavailable

HTTP_VERSIONS = (b"1.0", b"1.1")
# A line feed alone, a carriage return alone (the last byte so far may be half of a pair), a line that continues the one before it.
_BAD_LINES = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\n[ \t]")
_CONTENT_LENGTH = re.compile(rb"^content-length[ \t]*:([^\r\n]*)", flags=re.MULTILINE | re.IGNORECASE)


class Requests(h11.Connection):
    """Refuses a request whose end others may see elsewhere; of one that h11 takes and that is not plain, makes the last one."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.their_state is h11.IDLE:
            _check_head(self.trailing_data[0])
        event = super().next_event()
        if isinstance(event, h11.Request) and _is_chunked(event):
            # Chunks have extensions and trailers, which others read otherwise: what follows on this connection is not looked at.
            return h11.Request(
                method=event.method, target=event.target, headers=[*event.headers, CLOSE_HEADER], http_version=event.http_version
            )
        return event


class Connection(H11Protocol):
    seconds = 10.0  # from the first sign of a request to the end of its head
    most = 512  # open at the same time; the next is told to come again, and closed

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.conn = Requests(h11.SERVER)
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

    def send_400_response(self, msg: str) -> None:
        """For what is no request; nothing after it is looked at. Where an answer has begun, its end is all that can be said."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_raw(ApiError(HTTPStatus.BAD_REQUEST, msg, code="bad_request")))
        self.transport.close()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:  # the head has come
            if self._timer:
                self._timer.cancel()
            self._timer = None
        elif not self._timer:
            self._timer = self.loop.call_later(self.seconds, self.transport.close)


def _check_head(received: bytes) -> None:
    """Refuse what h11 would take: lines that do not end in CRLF or are folded, and more than one length."""
    head = received.partition(b"\r\n\r\n")[0]
    if _BAD_LINES.search(head):
        raise h11.RemoteProtocolError("a line of the head does not end in CRLF, or is folded")
    lengths = _CONTENT_LENGTH.findall(head)
    if len(lengths) > 1 or any(b"," in length for length in lengths):
        raise h11.RemoteProtocolError("more than one Content-Length")


def _is_chunked(request: h11.Request) -> bool:
    """Whether it has a Transfer-Encoding, which h11 takes if it is ``chunked``; refuses it beside a length or in an older version."""
    names = [name for name, _ in request.headers]
    if request.http_version not in HTTP_VERSIONS:
        raise h11.RemoteProtocolError("not a version of HTTP/1")
    if b"transfer-encoding" not in names:
        return False
    if b"content-length" in names or request.http_version != b"1.1":
        raise h11.RemoteProtocolError("a Transfer-Encoding beside a Content-Length, or before HTTP/1.1")
    return True


def _raw(error: ApiError) -> bytes:
    """An answer of which nothing was asked yet."""
    answer = error.response
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode(), b"connection: close"]
    return b"\r\n".join([*lines, *(name + b": " + value for name, value in answer.raw_headers), b"", bytes(answer.body)])
