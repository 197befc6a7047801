"""Connections of uvicorn, with limits that uvicorn does not have: how many are open, how long the head of a request may take, and which
framing of a request is accepted.

A proxy and this server must agree where a request ends. Otherwise the proxy takes for a body what this server takes for a request that
nobody checked (request smuggling; RFC 9112, sections 2.2, 5.2, 6.1, 6.3 and 11.2).
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
# A bare line feed, a bare carriage return (the last byte so far may be half of a pair), a folded line.
_BAD_LINES = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\n[ \t]")
_CONTENT_LENGTH = re.compile(rb"^content-length[ \t]*:([^\r\n]*)", flags=re.MULTILINE | re.IGNORECASE)


class StrictH11Connection(h11.Connection):
    """Refuses a request whose end others may see elsewhere. A chunked request is the last one of its connection."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As in h11; ``RemoteProtocolError`` also for ambiguous framing."""
        if self.their_state is h11.IDLE:
            _check_head(self.trailing_data[0])
        event = super().next_event()
        if isinstance(event, h11.Request) and _is_chunked(event):
            # Implementations differ in how they read chunk extensions and trailers: ignore what follows on this connection.
            return h11.Request(
                method=event.method, target=event.target, headers=[*event.headers, CLOSE_HEADER], http_version=event.http_version
            )
        return event


class Connection(H11Protocol):
    """uvicorn's protocol with ``StrictH11Connection``, a limit of open connections, and one of the time of a request's head."""

    head_seconds = 10.0  # from the first byte of a request, or the opening of the connection, to the end of its head
    max_connections = 512  # the next one gets 503 and is closed

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.conn = StrictH11Connection(h11.SERVER)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first request, or refuse the connection with 503."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.write(_raw(unavailable("Too many connections are open.")))
            transport.close()
        else:
            self._update_timer()

    def data_received(self, data: bytes) -> None:
        """Handle the bytes, and start or stop the clock of the head."""
        super().data_received(data)
        self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        super().connection_lost(exc)
        if self._timer:
            self._timer.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not a request with 400, and close. Once a response has begun, only close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_raw(ApiError(HTTPStatus.BAD_REQUEST, msg, code="bad_request")))
        self.transport.close()

    def _update_timer(self) -> None:
        if self.conn.their_state is not h11.IDLE:  # the head is complete
            if self._timer:
                self._timer.cancel()
            self._timer = None
        elif not self._timer:
            self._timer = self.loop.call_later(self.head_seconds, self.transport.close)


def _check_head(received: bytes) -> None:
    """Refuse what h11 would accept: lines that do not end in CRLF or are folded, and more than one length."""
    head = received.partition(b"\r\n\r\n")[0]
    if _BAD_LINES.search(head):
        raise h11.RemoteProtocolError("a line of the head does not end in CRLF, or is folded")
    lengths = _CONTENT_LENGTH.findall(head)
    if len(lengths) > 1 or any(b"," in length for length in lengths):
        raise h11.RemoteProtocolError("more than one Content-Length")


def _is_chunked(request: h11.Request) -> bool:
    """Whether the request has ``Transfer-Encoding: chunked``. Refuses it with a Content-Length or before HTTP/1.1."""
    names = [name for name, _ in request.headers]
    if request.http_version not in HTTP_VERSIONS:
        raise h11.RemoteProtocolError("not a version of HTTP/1")
    if b"transfer-encoding" not in names:
        return False
    if b"content-length" in names or request.http_version != b"1.1":
        raise h11.RemoteProtocolError("a Transfer-Encoding together with a Content-Length, or before HTTP/1.1")
    return True


def _raw(error: ApiError) -> bytes:
    """The error as a whole HTTP response, for a connection without a request."""
    response = error.response
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode(), b"connection: close"]
    return b"\r\n".join([*lines, *(name + b": " + value for name, value in response.raw_headers), b"", bytes(response.body)])
