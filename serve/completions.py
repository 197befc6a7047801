"""Answers completion requests of both kinds: finds the model, starts a completion stream, and chooses the response's form."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import Response

from model.generation.generate import ContextError
from model.generation.grammar import Grammar, JsonSchema
from serve import compatibility, tools
from serve.engine import EngineClosed, QueueFull
from serve.errors import ApiError, queue_full, unavailable
from serve.metrics import Metrics
from serve.models import ServedModel
from serve.responses import ChatResponseBuilder, CompletionResponseBuilder, ResponseBuilder, ToolResponseBuilder
from serve.responses_api import ResponsesBuilder, ResponsesRequest
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

    async def respond(self, body: ResponsesRequest, request: Request) -> Response:
        """Answer ``/v1/responses``, as a chat. ``ApiError`` as in ``complete``."""
        try:
            chat = body.chat
        except ValidationError as error:
            raise RequestValidationError([problem | {"loc": ("body", *problem["loc"])} for problem in error.errors()]) from None
        ignored = compatibility.check(body.unknown, ResponsesRequest)
        response = await self.chat(chat, request, ResponsesBuilder)
        for name, value in compatibility.header(ignored).items():
            response.headers.append(name, value)
        return response

    async def chat(self, body: ChatCompletionRequest, request: Request, builder_type: type[ResponseBuilder] | None = None) -> Response:
        """Answer ``/v1/chat/completions``, through the model's chat template. ``ApiError`` as in ``complete``."""

        def tokenize(served: ServedModel) -> list[list[int]]:
            reads_tools = tools.is_read(served.tokenizer.template or "")
            prompt = served.tokenizer.chat_prompt(
                [message.own_fields for message in body.messages] if reads_tools else body.template_messages,
                add_generation_prompt=body.add_generation_prompt,
                continue_final_message=body.continue_final_message,
                tools=[tool.model_dump(exclude_unset=True) for tool in body.offered_tools] if reads_tools and body.offered_tools else None,
                arguments=body.chat_template_kwargs,
            )
            return [prompt]

        max_tokens = body.max_completion_tokens or body.max_tokens
        top = (body.top_logprobs or 0) if body.logprobs else None
        builder_type = builder_type or (ToolResponseBuilder if body.offered_tools else ChatResponseBuilder)
        return await self._answer(body, request, builder_type, tokenize, max_tokens, top=top)

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
        name = find_name(self._rollouts, body.model)
        ignored = [*compatibility.check(body.model_extra or {}, type(body)), *([] if body.model in ("", name) else ["model"])]
        served, stream = await self._start(self._rollouts[name], body, tokenize, max_tokens, top, echo)
        builder = builder_type(name, served.fingerprint, served.tokenizer, with_logprobs=top is not None)
        headers = {"X-Model-Version": served.fingerprint} | compatibility.header(ignored)

        def end() -> None:
            stream.cancel()
            self._metrics.count_stream(name, stream)

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
        self, rollout: Rollout, body: GenerationRequest, tokenize: Tokenize, max_tokens: int | None, top: int | None, echo: bool
    ) -> tuple[ServedModel, CompletionStream]:
        """Start the request on the current version. If that is closed just now, try again with the one that replaced it."""
        for _ in range(MAX_ATTEMPTS):
            served = rollout.current
            options = GenerationOptions(
                body.sampling(served.defaults),
                _max_new_tokens(max_tokens, served),
                n=body.n,
                stop=body.stops,
                stop_token_ids=tuple(body.stop_token_ids),
                ignore_eos=body.ignore_eos,
                min_tokens=body.min_tokens,
                log_probabilities=top,
                adapter=served.adapter,
                echo=echo,
                progress=bool(body.stream_options and body.stream_options.include_progress),
                seconds=self._limits.answer_seconds,
            )
            try:
                return served, await self._start_on(served, body, options, tokenize)
            except EngineClosed:
                continue
        raise unavailable("The model is being replaced.")

    async def _start_on(
        self, served: ServedModel, body: GenerationRequest, options: GenerationOptions, tokenize: Tokenize
    ) -> CompletionStream:
        """``ApiError`` 400 or 429; ``EngineClosed`` if another version has taken over."""
        try:
            _check_biases(body, served)
            options = replace(options, grammar=await asyncio.to_thread(_grammar, body, served))
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
            raise context_exceeded(str(error), served) from None
        except ValueError as error:
            raise ApiError(400, str(error), code="invalid_prompt") from None
        except QueueFull:
            raise queue_full() from None
        return stream


def find_name(rollouts: Mapping[str, Rollout], model: str) -> str:
    """The name of the model that answers: the first where none is named, and the only one under any name; ``ApiError`` 404."""
    first = next(iter(rollouts))
    if not model or (len(rollouts) == 1 and model != first):
        return first
    find_rollout(rollouts, model)
    return model


def find_rollout(rollouts: Mapping[str, Rollout], model: str) -> Rollout:
    """The model that clients call ``model``; ``ApiError`` 404 if there is none."""
    if model not in rollouts:
        raise ApiError(404, f"There is no such model; there are: {', '.join(rollouts)}", param="model", code="model_not_found")
    return rollouts[model]


def context_exceeded(problem: str, served: ServedModel) -> ApiError:
    """400 in the words that clients look for, to shorten a conversation and try again."""
    message = f"This model's maximum context length is {served.engine.max_len} tokens: {problem}."
    return ApiError(400, message, code="context_length_exceeded")


def _max_new_tokens(max_tokens: int | None, served: ServedModel) -> int:
    """What was asked for, or what the context has room for at most."""
    return served.engine.max_len if max_tokens is None or max_tokens < 0 else min(max_tokens, served.engine.max_len)


def _grammar(body: GenerationRequest, served: ServedModel) -> Grammar | None:
    """What answers must fit; ``ValueError`` for what cannot be demanded."""
    if isinstance(body, ChatCompletionRequest) and (offered := body.offered_tools):
        parallel, answer = body.parallel_tool_calls, body.schema_of_answers
        return tools.grammar(offered, body.tool_choice, served.tokenizer, parallel=parallel, answer=answer)
    schema = body.schema_of_answers
    return None if schema is None else JsonSchema(schema, served.tokenizer, grounded_in=body.grounding)


def _check_biases(body: GenerationRequest, served: ServedModel) -> None:
    vocabulary = served.engine.model.config.vocab_size
    for name, ids in (("logit_bias", map(int, body.logit_bias)), ("stop_token_ids", body.stop_token_ids)):
        if any(token >= vocabulary for token in ids):
            raise ApiError(400, f"{name} has a token id outside the vocabulary of {vocabulary}", param=name, code="unknown_token")
