"""Answers completion requests of both kinds: finds the model, starts a completion stream, and chooses the response's form."""

import asyncio
from collections.abc import Callable, Mapping

from fastapi import Request
from starlette.responses import Response

from model.generation.generate import ContextError
from serve.engine import EngineClosed, QueueFull
from serve.errors import ApiError, queue_full, unavailable
from serve.metrics import Metrics
from serve.models import ServedModel
from serve.responses import ChatResponseBuilder, CompletionResponseBuilder, ResponseBuilder
from serve.rollout import Rollout
from serve.schema import ChatCompletionRequest, CompletionRequest, GenerationRequest
from serve.security import Limits
from serve.streaming import EventStream, server_sent_events, whole_response
from serve.text import CompletionStream, GenerationOptions

MAX_ATTEMPTS = 3  # to start a request; each fails only if its version is being replaced at that moment
DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's default of max_tokens for completions
Tokenize = Callable[[ServedModel], list[list[int]]]  # the request's prompts as ids, by the tokenizer of the version that answers


class CompletionService:
    """Answers the two completion routes with the models of ``rollouts``."""

    def __init__(self, rollouts: Mapping[str, Rollout], metrics: Metrics, limits: Limits):
        self._rollouts, self._metrics, self._limits = rollouts, metrics, limits

    async def complete(self, body: CompletionRequest, request: Request) -> Response:
        """Answer ``/v1/completions``. ``ApiError``: 400, 404, 429, 499, 500 or 503."""

        def tokenize(served: ServedModel) -> list[list[int]]:
            return [served.tokenizer.prompt(p) if isinstance(p, str) else p for p in body.prompts]

        max_tokens = DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        return await self._answer(body, request, CompletionResponseBuilder, tokenize, max_tokens, top=body.logprobs, echo=body.echo)

    async def chat(self, body: ChatCompletionRequest, request: Request) -> Response:
        """Answer ``/v1/chat/completions``, through the model's chat template. ``ApiError`` as in ``complete``."""

        def tokenize(served: ServedModel) -> list[list[int]]:
            return [served.tokenizer.chat_prompt([message.message for message in body.messages])]

        max_tokens = body.max_completion_tokens or body.max_tokens
        top = (body.top_logprobs or 0) if body.logprobs else None
        return await self._answer(body, request, ChatResponseBuilder, tokenize, max_tokens, top=top)

    async def _answer(
        self,
        body: GenerationRequest,
        request: Request,
        builder_type: type[ResponseBuilder],
        tokenize: Tokenize,
        max_tokens: int | None,
        *,
        top: int | None,
        echo: bool = False,
    ) -> Response:
        """``top``: alternatives per token, ``None`` for no log-probabilities."""
        served, stream = await self._start(body, tokenize, max_tokens, top, echo)
        builder = builder_type(body.model, served.fingerprint, served.tokenizer, with_logprobs=top is not None)
        headers = {"X-Model-Version": served.fingerprint}

        def end() -> None:
            stream.cancel()
            self._metrics.count_stream(body.model, stream)

        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            events = server_sent_events(stream, builder, include_usage=include_usage)
            return EventStream(events, end, self._limits.answer_seconds, headers)
        try:
            content = await whole_response(request, stream, builder)
            return Response(content, headers=headers, media_type="application/json")
        finally:
            end()

    async def _start(
        self, body: GenerationRequest, tokenize: Tokenize, max_tokens: int | None, top: int | None, echo: bool
    ) -> tuple[ServedModel, CompletionStream]:
        """Start the request on the current version. If that is closed just now, try again with the one that replaced it."""
        rollout = find_rollout(self._rollouts, body.model)
        for _ in range(MAX_ATTEMPTS):
            served = rollout.current
            options = GenerationOptions(
                body.sampling,
                _max_new_tokens(max_tokens, served),
                n=body.n,
                stop=body.stops,
                log_probabilities=top,
                echo=echo,
                seconds=self._limits.answer_seconds,
            )
            try:
                return served, await self._start_on(served, options, tokenize)
            except EngineClosed:
                continue
        raise unavailable("The model is being replaced.")

    async def _start_on(self, served: ServedModel, options: GenerationOptions, tokenize: Tokenize) -> CompletionStream:
        """``ApiError`` 400 or 429; ``EngineClosed`` if another version has taken over."""
        try:
            prompts = await asyncio.to_thread(tokenize, served)
            if (count := sum(map(len, prompts))) > self._limits.max_prompt_tokens:
                raise ValueError(f"{count} prompt tokens are more than {self._limits.max_prompt_tokens}")
            stream = CompletionStream(served.engine, served.tokenizer, prompts, options)
            try:
                stream.start()
            except BaseException:
                stream.cancel()
                raise
        except ContextError as error:
            raise ApiError(400, str(error), code="context_length_exceeded") from None
        except ValueError as error:
            raise ApiError(400, str(error), code="invalid_prompt") from None
        except QueueFull:
            raise queue_full() from None
        return stream


def find_rollout(rollouts: Mapping[str, Rollout], model: str) -> Rollout:
    """The model that clients call ``model``; ``ApiError`` 404 if there is none."""
    if model not in rollouts:
        raise ApiError(404, f"There is no such model; there are: {', '.join(rollouts)}", param="model", code="model_not_found")
    return rollouts[model]


def _max_new_tokens(max_tokens: int | None, served: ServedModel) -> int:
    limit = served.engine.max_len
    if max_tokens is not None and max_tokens > limit:
        raise ApiError(400, f"max_tokens is more than the context of {limit} tokens", param="max_tokens", code="too_many_tokens")
    return limit if max_tokens is None else max_tokens
