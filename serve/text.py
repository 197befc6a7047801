"""Text requests over the engine: prompts as token ids in, text out as soon as it is certain, ending before a stop string.

It runs in an event loop, and knows nothing of HTTP.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from model.generation.adapters import Adapter
from model.generation.completion import Answer
from model.generation.generate import Token, check, prompt_log_probabilities
from model.generation.grammar import Form, Grammar, MinTokens
from model.generation.sampling import LogProbability, Sampling
from model.tokenizer.tokenizer import TextStream, Tokenizer
from serve.engine import Engine, FinishReason, Progress, QueueFull, Request, run_in_fresh_thread

ChoiceFinishReason = Literal["stop", "length"]
Event = Token | FinishReason | Progress
_scorer = ThreadPoolExecutor(1, thread_name_prefix="scorer")  # one prompt's logits at a time, in parallel to the engine
_scoring: set["CompletionStream"] = set()


class GenerationFailed(Exception):
    """The engine gave up one of the choices."""


class DeadlineExceeded(Exception):
    """The time limit was over before the first token came."""


@dataclass(frozen=True)
class GenerationOptions:
    """What to generate for each prompt: ``n`` choices, the first with the seed itself, the others with the seeds after it."""

    sampling: Sampling
    max_new_tokens: int  # 0 only with echo
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()  # besides the tokenizer's
    ignore_eos: bool = False  # the tokenizer's stop ids end no answer
    min_tokens: int = 0  # before a stop id
    grammar: Grammar | None = None  # which answers must fit; without min_tokens and ignore_eos
    log_probabilities: int | None = None  # alternatives per token; None: no log-probabilities
    adapter: Adapter | None = None  # of the engine's model
    echo: bool = False
    progress: bool = False  # also chunks that say how far the prompts are read
    seconds: float = 600.0  # then an answer ends with the tokens that it has


@dataclass(frozen=True)
class StreamChunk:
    """The text of one choice that became certain, with its tokens (id, log-probability). The last chunk has the finish reason.

    With the option ``progress`` there are chunks before the first token that have nothing but it.

    The token that ends an answer has no text. It is listed with ``echo`` only, where every token counts.
    """

    choice: int
    text: str
    tokens: tuple[tuple[int, LogProbability | None], ...] = ()
    finish: ChoiceFinishReason | None = None
    progress: Progress | None = None


class CompletionStream:
    """The choices of one request: prompt 0's ``n`` choices, then prompt 1's, and so on.

    Call ``start``, iterate, and call ``cancel`` in any case; ``cancel`` after the end does no harm.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], options: GenerationOptions):
        self.engine, self.tokenizer, self.prompts, self.options = engine, tokenizer, prompts, options
        self.prompt_tokens = sum(map(len, prompts))
        self.completion_tokens = 0
        self.first_token_seconds: float | None = None
        self._began = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event] | None] = asyncio.Queue()  # None: the time is over
        self._timer = self._loop.call_later(options.seconds, self._events.put_nowait, None)
        self._prompt_scores: list[list[LogProbability | None]] = []
        self._answers = [Answer(TextStream(tokenizer), options.stop) for _ in range(self.choices)]
        self._stop_ids = frozenset(() if options.ignore_eos else tokenizer.stop_ids) | frozenset(options.stop_token_ids)
        self._silent_ids = frozenset(tokenizer.stop_ids)  # control tokens, which are no text of an answer
        self._requests = [self._request(choice) for choice in range(self.choices)]

    @property
    def choices(self) -> int:
        """The number of choices, over all prompts."""
        return len(self.prompts) * self.options.n

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that came from the prefix cache, over all choices."""
        return sum(request.cached_tokens for request in self._requests)

    def start(self) -> None:
        """Submit all choices to the engine, or none.

        ``ValueError``, ``QueueFull`` and ``EngineClosed`` as in ``Engine.submit``. ``QueueFull`` also when more than the engine's
        ``max_waiting`` requests wait for the log-probabilities of their prompts.
        """
        for number, prompt in enumerate(self.prompts):
            check(prompt, vocabulary=self.engine.model.config.vocab_size, context=self.engine.max_len, index=number)
        scores_prompts = self.options.echo and self.options.log_probabilities is not None
        if scores_prompts and len(_scoring) > self.engine.max_waiting:
            raise QueueFull
        if self.options.max_new_tokens:
            self.engine.submit(*self._requests)
        if scores_prompts:
            _scoring.add(self)

    def cancel(self) -> None:
        """End all choices and stop the clock."""
        self._timer.cancel()
        _scoring.discard(self)
        for request in self._requests:
            request.cancel()

    async def __aiter__(self) -> AsyncIterator[StreamChunk]:
        """The chunks of all choices as they come.

        ``GenerationFailed`` when the engine gives up a choice, ``DeadlineExceeded`` when no token came in time.
        """
        if self in _scoring:
            await self._score_prompts()
        if self.options.echo:
            for choice in range(self.choices):
                yield self._echo(choice)
        if not self.options.max_new_tokens:
            for choice in range(self.choices):
                yield StreamChunk(choice, "", finish="length")
            return
        running = set(range(self.choices))
        while running:
            message = await self._events.get()
            if message is None:
                if not self.completion_tokens:
                    raise DeadlineExceeded
                for choice in running:
                    yield self._last_chunk(choice, "length")
                return
            choice, event = message
            if choice not in running:  # a token that was sampled before the cancellation took effect
                continue
            chunk = StreamChunk(choice, "", progress=event) if isinstance(event, Progress) else self._chunk(choice, event)
            if chunk.finish:
                running.remove(choice)
                self._requests[choice].cancel()
            yield chunk

    async def _score_prompts(self) -> None:
        try:
            async with asyncio.timeout_at(self._timer.when()):
                for prompt in self.prompts:
                    self._prompt_scores.append(await self._loop.run_in_executor(_scorer, self._score, prompt))
        except TimeoutError:
            raise DeadlineExceeded from None
        _scoring.discard(self)

    def _score(self, prompt: Sequence[int]) -> list[LogProbability | None]:
        options = self.options
        return run_in_fresh_thread(prompt_log_probabilities, self.engine.model, prompt, options.log_probabilities, options.adapter)

    def _request(self, choice: int) -> Request:
        prompt, copy = divmod(choice, self.options.n)
        seed = self.options.sampling.seed
        return Request(
            self.prompts[prompt],
            self.options.sampling if seed is None else replace(self.options.sampling, seed=seed + copy),
            self.options.max_new_tokens,
            _emitter(self._loop, self._events, choice),
            stop_ids=self._stop_ids,
            log_probabilities=self.options.log_probabilities,
            form=self._form(),
            on_progress=_emitter(self._loop, self._events, choice) if self.options.progress else None,
            adapter=self.options.adapter,
        )

    def _form(self) -> Form | None:
        if self.options.grammar:
            return self.options.grammar.answer()
        return MinTokens(self.options.min_tokens, self._stop_ids) if self.options.min_tokens else None

    def _chunk(self, choice: int, event: Token | FinishReason) -> StreamChunk:
        if not isinstance(event, Token):
            if event in ("failed", "cancelled"):
                raise GenerationFailed
            return self._last_chunk(choice, "length")
        self.completion_tokens += 1
        if self.first_token_seconds is None:
            self.first_token_seconds = time.monotonic() - self._began
        token = (event.id, event.log_probability)
        if event.id in self._stop_ids:
            return replace(self._last_chunk(choice, "stop"), tokens=(token,) if self.options.echo else ())
        answer = self._answers[choice]
        text = "" if event.id in self._silent_ids else answer.push(event.id)
        return StreamChunk(choice, text, (token,), "stop" if answer.stopped else None)

    def _last_chunk(self, choice: int, finish: ChoiceFinishReason) -> StreamChunk:
        answer = self._answers[choice]
        text = answer.finish()
        return StreamChunk(choice, text, (), "stop" if answer.stopped else finish)

    def _echo(self, choice: int) -> StreamChunk:
        """The prompt's text without the tokenizer's prefix, and all of its tokens."""
        prompt = choice // self.options.n
        ids = self.prompts[prompt]
        prefix = len(self.tokenizer.prefix)
        visible_ids = ids[prefix:] if tuple(ids[:prefix]) == self.tokenizer.prefix else ids
        scores = self._prompt_scores[prompt] if self._prompt_scores else [None] * len(ids)
        return StreamChunk(choice, self.tokenizer.decode(visible_ids), tuple(zip(ids, scores, strict=True)))


def _emitter(loop: asyncio.AbstractEventLoop, events: "asyncio.Queue[tuple[int, Event] | None]", choice: int) -> Callable[[Event], None]:
    """Hands the engine's events of one choice to the event loop.

    It does not refer to the stream: objects in a reference cycle are freed late, and the engine, its model and its cache with them.
    """

    def emit(event: Event) -> None:  # called in the engine's thread
        loop.call_soon_threadsafe(events.put_nowait, (choice, event))

    return emit
