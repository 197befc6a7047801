"""The ASGI application: OpenAI's routes, health, metrics, the passport, and the files of the page."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import FileResponse, JSONResponse, Response

from serve import errors
from serve.completions import CompletionService, find_name, find_rollout
from serve.metrics import Metrics
from serve.model_info import model_info
from serve.models import ServedModel
from serve.preferences import Preference, PreferenceFile, record
from serve.responses_api import ResponsesRequest
from serve.rollout import Rollout
from serve.schema import ChatCompletionRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest
from serve.security import PUBLIC_ROUTES, Limits, SecurityMiddleware
from serve.strict import Lenient, field_names

PAGE = Path(__file__).with_name("page")
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}  # for the API's description


def application(
    rollouts: Mapping[str, Rollout],
    *,
    keys: tuple[str, ...] = (),
    limits: Limits,
    loopback: bool = True,
    preferences: PreferenceFile | None = None,
) -> SecurityMiddleware:
    """The ASGI application over the models, by the names that clients use. The first one is the page's default.

    ``keys``: the API keys, any of which is accepted; none: no key is needed. ``loopback``: whether the server listens on loopback only.
    ``preferences``: where votes on answers are stored, if anywhere.
    """
    app = FastAPI(
        title="medical-llm",
        version="1",
        docs_url=None,
        redoc_url=None,
        description="Not a medical device.",
        responses=errors.RESPONSES,
    )
    # An adapter's requests are counted with its base model's, in whose engine they are.
    engines = {name: rollout for name, rollout in rollouts.items() if _parent(name, rollouts) is None}
    metrics = Metrics(lambda: {name: rollout.current.engine.load() for name, rollout in engines.items()})
    errors.install(app, field_names(Lenient))
    _add_completion_routes(app, CompletionService(rollouts, metrics, limits))
    page = _add_page(app)
    _add_model_routes(app, rollouts, stores_preferences=preferences is not None)
    if preferences:
        _add_preferences_route(app, rollouts, preferences)
    _add_token_routes(app, rollouts)
    _add_status_routes(app, rollouts, metrics, is_draining=lambda: middleware.draining)
    routes = {str(getattr(route, "path", "")) for route in app.routes} | set(page)
    middleware = SecurityMiddleware(
        app,
        keys=keys,
        limits=limits,
        routes=routes,
        public=PUBLIC_ROUTES | set(page),
        loopback=loopback,
        on_response=metrics.count_response,
    )
    return middleware


def _add_completion_routes(app: FastAPI, service: CompletionService) -> None:
    @app.post("/completions", include_in_schema=False)
    @app.post("/v1/completions", responses=STREAMED)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await service.complete(body, request)

    @app.post("/chat/completions", include_in_schema=False)
    @app.post("/v1/chat/completions", responses=STREAMED)
    async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
        return await service.chat(body, request)

    @app.post("/responses", include_in_schema=False)
    @app.post("/v1/responses", responses=STREAMED)
    async def responses(body: ResponsesRequest, request: Request) -> Response:
        return await service.respond(body, request)


def _add_model_routes(app: FastAPI, rollouts: Mapping[str, Rollout], *, stores_preferences: bool) -> None:
    @app.get("/models", include_in_schema=False)
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        present = [(name, served) for name, rollout in rollouts.items() if (served := rollout.served)]
        data = [_describe(name, served, _parent(name, rollouts)) for name, served in present]
        return {"object": "list", "data": data, "stores_preferences": stores_preferences}

    @app.get("/models/{model:path}", include_in_schema=False)
    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        return _describe(model, find_rollout(rollouts, model).current, _parent(model, rollouts))

    @app.get("/passport")
    async def passport(model: str | None = None) -> dict[str, Any]:
        name = next(iter(rollouts)) if model is None else model
        return await asyncio.to_thread(model_info, name, find_rollout(rollouts, name).current)


def _add_preferences_route(app: FastAPI, rollouts: Mapping[str, Rollout], file: PreferenceFile) -> None:
    @app.post("/preferences", status_code=201)
    async def preferences(body: Preference) -> dict[str, bool]:
        try:
            await asyncio.to_thread(file.append, record(body, rollouts))
        except OSError:
            raise errors.unavailable("The preference cannot be stored.") from None
        return {"stored": True}


def _add_token_routes(app: FastAPI, rollouts: Mapping[str, Rollout]) -> None:
    """What vLLM and llama.cpp have beside OpenAI's routes, under the names of both."""

    @app.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        served = rollouts[find_name(rollouts, body.model)].current
        try:
            ids = await asyncio.to_thread(body.ids, served.tokenizer)
        except ValueError as error:
            raise errors.ApiError(400, str(error), code="invalid_prompt") from None
        return {"tokens": ids, "count": len(ids), "max_model_len": served.engine.max_len}

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeRequest) -> dict[str, str]:
        tokenizer = rollouts[find_name(rollouts, body.model)].current.tokenizer
        if max(body.tokens, default=0) >= tokenizer.n_vocab:
            raise errors.ApiError(400, f"a token id is outside the vocabulary of {tokenizer.n_vocab}", param="tokens", code="unknown_token")
        text = await asyncio.to_thread(tokenizer.decode, body.tokens)
        return {"prompt": text, "content": text}


def _add_status_routes(app: FastAPI, rollouts: Mapping[str, Rollout], metrics: Metrics, *, is_draining: Callable[[], bool]) -> None:
    @app.get("/health", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, bool]:
        return {"alive": True}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        states = {name: rollout.state() for name, rollout in rollouts.items()}
        draining = is_draining()
        return JSONResponse({"ready": not draining, "models": states}, 503 if draining else 200)

    @app.get("/metrics", include_in_schema=False)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> list[str]:
    """Add a route for each file of the page; the routes. The files hold nothing private."""
    files = {f"/{path.name}": path for path in sorted(PAGE.glob("*")) if path.suffix in MEDIA_TYPES}
    if "/index.html" in files:
        files["/"] = files.pop("/index.html")
    for route, path in files.items():
        app.add_api_route(route, _file_endpoint(path), include_in_schema=False)
    return list(files)


def _file_endpoint(path: Path) -> Callable[[], FileResponse]:
    return lambda: FileResponse(path, media_type=MEDIA_TYPES[path.suffix])


def _parent(name: str, rollouts: Mapping[str, Rollout]) -> str | None:
    """The name of an adapter's base model; ``None`` of a model."""
    return next((base for base, rollout in rollouts.items() if name in rollout.adapters), None)


def _describe(name: str, served: ServedModel, parent: str | None) -> dict[str, Any]:
    """An entry of ``/v1/models``: OpenAI's fields, and which version it is."""
    return {
        "id": name,
        "object": "model",
        "created": served.opened,
        "owned_by": "local",
        "root": name if parent is None else "/".join(part for part in (served.location.name, served.location.version) if part),
        "parent": parent,
        "version": served.location.version or None,
        "fingerprint": served.fingerprint,
        "verified": served.verified,
        "max_model_len": served.engine.max_len,
    }
