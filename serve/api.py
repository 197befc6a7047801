"""The HTTP interface: OpenAI's routes over the models that are served, health, metrics, and the page's files.

It knows nothing of how answers are computed, nor of what trust.py does around it.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from model.generation.generate import ContextError
from serve import errors
from serve.engine import ClosedError, FullError
from serve.errors import ApiError, failed, full, unavailable
from serve.metrics import Metrics
from serve.models import Served
from serve.panel import panel
from serve.replies import ChatReply, CompletionReply, Reply
from serve.rollout import Rollout
from serve.schema import Asked, ChatAsked, CompletionAsked
from serve.text import Answers, FailedError, How, LateError, Piece
from serve.trust import OPEN, Limits, Trust

PAGE = Path(__file__).with_name("page")
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
TURNS = 3  # a version that is taken from service while a request is on its way to it is found anew
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}  # for the API's description
OPENAI_DEFAULT = 16  # new tokens of a completion that does not say
MANY = 100  # tokens of a chunk that is put into words beside the event loop
_log = logging.getLogger("serve.api")


def application(rollouts: Mapping[str, Rollout], *, keys: tuple[str, ...] = (), limits: Limits, loopback: bool = True) -> Trust:
    """The ASGI application over models by the name that clients call them by; the first is what the page asks."""
    app = FastAPI(
        title="medical-llm",
        version="1",
        docs_url=None,
        redoc_url=None,
        description="Not a medical device.",
        responses=errors.RESPONSES,
    )
    metrics = Metrics(lambda: {name: rollout.current.engine.load() for name, rollout in rollouts.items()})
    errors.install(app)
    _add_answers(app, rollouts, metrics, limits)
    page = _add_page(app)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_described(name, rollout.current) for name, rollout in rollouts.items()]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        return _described(model, _find(rollouts, model).current)

    @app.get("/passport")
    async def passport(model: str | None = None) -> dict[str, Any]:
        name = next(iter(rollouts)) if model is None else model
        return await asyncio.to_thread(panel, name, _find(rollouts, name).current)

    @app.get("/healthz")
    async def healthz() -> dict[str, bool]:
        return {"alive": True}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        states = {name: rollout.state() for name, rollout in rollouts.items()}
        return JSONResponse({"ready": not trust.draining, "models": states}, 503 if trust.draining else 200)

    @app.get("/metrics", include_in_schema=False)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    routes = {str(getattr(route, "path", "")) for route in app.routes} | set(page)
    trust = Trust(app, keys=keys, limits=limits, routes=routes, public=OPEN | set(page), loopback=loopback, answered=metrics.answered)
    return trust


def _add_page(app: FastAPI) -> list[str]:
    """A route for each file of the page that is there; they hold nothing that is private."""
    files = {f"/{path.name}": path for path in sorted(PAGE.glob("*")) if path.suffix in MEDIA}
    if "/index.html" in files:
        files["/"] = files.pop("/index.html")
    for route, path in files.items():
        app.add_api_route(route, _sends(path), include_in_schema=False)
    return list(files)


def _sends(path: Path) -> Callable[[], FileResponse]:
    return lambda: FileResponse(path, media_type=MEDIA[path.suffix])


def _add_answers(app: FastAPI, rollouts: Mapping[str, Rollout], metrics: Metrics, limits: Limits) -> None:
    @app.post("/v1/completions", responses=STREAMED)
    async def completions(asked: CompletionAsked, request: Request) -> Response:
        def prompts(served: Served) -> list[list[int]]:
            return [served.tokenizer.prompt(p) if isinstance(p, str) else p for p in asked.prompts]

        new = OPENAI_DEFAULT if asked.max_tokens is None else asked.max_tokens
        return await answer(request, asked, CompletionReply, prompts, new, top=asked.logprobs, echo=asked.echo)

    @app.post("/v1/chat/completions", responses=STREAMED)
    async def chat_completions(asked: ChatAsked, request: Request) -> Response:
        def prompts(served: Served) -> list[list[int]]:
            return [served.tokenizer.chat_prompt([said.message for said in asked.messages])]

        new = asked.max_completion_tokens or asked.max_tokens
        return await answer(request, asked, ChatReply, prompts, new, top=(asked.top_logprobs or 0) if asked.logprobs else None)

    async def answer(
        request: Request,
        asked: Asked,
        kind: type[CompletionReply] | type[ChatReply],
        prompts: Callable[[Served], list[list[int]]],
        new: int | None,
        *,
        top: int | None,
        echo: bool = False,
    ) -> Response:
        rollout = _find(rollouts, asked.model)
        for _ in range(TURNS):
            served = rollout.current
            how = How(
                asked.sampling,
                _new_tokens(new, served),
                n=asked.n,
                stop=asked.stops,
                log_probabilities=top,
                echo=echo,
                seconds=limits.seconds,
            )
            answers = await _started(served, how, prompts, limits)
            if answers:
                break
        else:
            raise unavailable("The model is being replaced.")
        reply = kind(asked.model, served.fingerprint, served.tokenizer, tokens=top is not None)
        headers = {"X-Model-Version": served.fingerprint}

        def end() -> None:
            answers.cancel()
            metrics.ended(asked.model, answers)

        if asked.stream:
            told = bool(asked.stream_options and asked.stream_options.include_usage)
            return Stream(_events(answers, reply, usage=told), end, limits.seconds, headers)
        try:
            content = await _whole(request, answers, reply)
            return Response(content, headers=headers, media_type="application/json")
        finally:
            end()


class Stream(StreamingResponse):
    """Server-sent events. However it ends, by the client or by the clock too, its requests end with it."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], end: Callable[[], None], seconds: float, headers: dict[str, str]):
        super().__init__(events, headers=headers)
        self._end, self._seconds = end, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # A client that does not read what it asked for keeps its connection no longer than twice the answer's time.
            async with asyncio.timeout(2 * self._seconds):
                await super().__call__(scope, receive, send)
        finally:
            self._end()


async def _started(served: Served, how: How, prompts: Callable[[Served], list[list[int]]], limits: Limits) -> Answers | None:
    """None where the engine is closed: another version answers by now."""
    try:
        ids = await asyncio.to_thread(prompts, served)
        if (count := sum(map(len, ids))) > limits.prompt_tokens:
            raise ValueError(f"{count} prompt tokens are more than {limits.prompt_tokens}")
        answers = Answers(served.engine, served.tokenizer, ids, how)
        try:
            answers.start()
        except BaseException:
            answers.cancel()
            raise
    except ContextError as error:
        raise ApiError(400, str(error), code="context_length_exceeded") from None
    except ValueError as error:
        raise ApiError(400, str(error), code="invalid_prompt") from None
    except FullError:
        raise full() from None
    except ClosedError:
        return None
    return answers


async def _whole(request: Request, answers: Answers, reply: Reply) -> bytes:
    """The answer, in JSON, when all of it is there. A client that leaves before ends it."""
    pieces: list[list[Piece]] = [[] for _ in range(len(answers.prompts) * answers.how.n)]

    async def collect() -> None:
        async for piece in answers:
            pieces[piece.choice].append(piece)

    collecting, leaving = asyncio.create_task(collect()), asyncio.create_task(_left(request))
    try:
        await asyncio.wait((collecting, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            raise ApiError(499, "The client left.")
        collecting.result()
    except FailedError:
        raise failed() from None
    except LateError:
        raise unavailable("No answer began in time.") from None
    finally:
        collecting.cancel()
        leaving.cancel()
    return await asyncio.to_thread(lambda: _json(reply.of_all(pieces, answers)).encode())


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(answers: Answers, reply: Reply, *, usage: bool) -> AsyncIterator[str]:
    unknown = {"usage": None} if usage else {}
    try:
        for chunk in reply.openings(len(answers.prompts) * answers.how.n):
            yield _event(chunk | unknown)
        async for piece in answers:
            found = reply.of_piece(piece) if len(piece.tokens) < MANY else await asyncio.to_thread(reply.of_piece, piece)
            if found:
                yield _event(found | unknown)
        if usage:
            yield _event(reply.of_usage(answers))
    except FailedError:
        yield _event(failed().body)
    except LateError:
        yield _event(unavailable("No answer began in time.").body)
    except Exception as error:  # the stream has begun, so that nobody else tells the client
        _log.error("a stream failed: %s", type(error).__name__)
        yield _event(failed().body)
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {_json(content)}\n\n"


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _new_tokens(wanted: int | None, served: Served) -> int:
    most = served.engine.max_len
    if wanted is not None and wanted > most:
        raise ApiError(400, f"max_tokens is more than the context of {most} tokens", param="max_tokens", code="too_many_tokens")
    return most if wanted is None else wanted


def _find(rollouts: Mapping[str, Rollout], model: str) -> Rollout:
    if model not in rollouts:
        raise ApiError(404, f"There is no such model; there are: {', '.join(rollouts)}", param="model", code="model_not_found")
    return rollouts[model]


def _described(name: str, served: Served) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "local",
        "version": served.place.version or None,
        "fingerprint": served.fingerprint,
        "verified": served.verified,
        "max_model_len": served.engine.max_len,
    }
