"""Sends the answer of a completion stream to its client: as one JSON document, or as server-sent events."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serve.errors import ApiError, internal_error, unavailable
from serve.responses import ResponseBuilder
from serve.text import CompletionStream, DeadlineExceeded, GenerationFailed, StreamChunk

LARGE_CHUNK = 100  # tokens; a chunk with as many is built in a thread, so that it does not block the event loop
_log = logging.getLogger("serve.api")


class EventStream(StreamingResponse):
    """Server-sent events. ``end`` is called however the response ends: complete, by the client, or by the clock."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], end: Callable[[], None], seconds: float, headers: dict[str, str]):
        super().__init__(events, headers=headers)
        self._end, self._seconds = end, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. A client that does not read them keeps its connection for at most twice the time of an answer."""
        try:
            async with asyncio.timeout(2 * self._seconds):
                await super().__call__(scope, receive, send)
        finally:
            self._end()


async def whole_response(request: Request, stream: CompletionStream, builder: ResponseBuilder) -> bytes:
    """The complete response as JSON. ``ApiError``: 499 if the client leaves, 500 if the engine fails, 503 if no token came in time."""
    chunks: list[list[StreamChunk]] = [[] for _ in range(stream.choices)]

    async def collect() -> None:
        async for chunk in stream:
            chunks[chunk.choice].append(chunk)

    collecting, leaving = asyncio.create_task(collect()), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((collecting, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            raise ApiError(499, "The client left.")
        collecting.result()
    except GenerationFailed:
        raise internal_error() from None
    except DeadlineExceeded:
        raise unavailable("No answer began in time.") from None
    finally:
        collecting.cancel()
        leaving.cancel()
    return await asyncio.to_thread(lambda: _json(builder.build(chunks, stream)).encode())


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def server_sent_events(stream: CompletionStream, builder: ResponseBuilder, *, include_usage: bool) -> AsyncIterator[str]:
    """The events of a streamed response, up to ``[DONE]``. An error becomes the last event before it."""
    no_usage_yet = {"usage": None} if include_usage else {}
    try:
        for event in builder.initial_chunks(stream.choices):
            yield _event(event | no_usage_yet)
        async for chunk in stream:
            if chunk.progress:
                yield _event(builder.progress_chunk(chunk.choice, chunk.progress, stream) | no_usage_yet)
                continue
            large = len(chunk.tokens) >= LARGE_CHUNK
            for event in await asyncio.to_thread(builder.events, chunk) if large else builder.events(chunk):
                yield _event(event | no_usage_yet)
        for event in builder.final_events(stream, include_usage=include_usage):
            yield _event(event)
    except GenerationFailed:
        yield _event(internal_error().body)
    except DeadlineExceeded:
        yield _event(unavailable("No answer began in time.").body)
    except Exception as error:  # the response has begun, so no error handler reaches the client any more
        _log.error("a stream failed: %s", type(error).__name__)
        yield _event(internal_error().body)
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    name = f"event: {content['type']}\n" if "type" in content else ""  # of the Responses API
    return f"{name}data: {_json(content)}\n\n"


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
