"""Text requests over the engine: prompts to tokens, tokens to text that ends before a stop string, in pieces as it becomes certain.

It runs in an event loop, and knows nothing of HTTP.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from model.generation.completion import Answer
from model.generation.generate import Token, check, prompt_log_probabilities
from model.generation.sampling import LogProbability, Sampling
from model.tokenizer.tokenizer import TextStream, Tokenizer
from serve.engine import Ended, Engine, FullError, Request, apart

Finish = Literal["stop", "length"]
_scorer = ThreadPoolExecutor(1, thread_name_prefix="scorer")  # a whole prompt's logits at a time, beside what the engine does
_scoring: set["Answers"] = set()


class FailedError(Exception):
    """The model could not go on with a request."""


class LateError(Exception):
    """The time was over before the first token came."""


@dataclass(frozen=True)
class How:
    """What is wanted of each prompt: ``n`` answers, the first drawn with the seed and the others with those that follow it."""

    sampling: Sampling
    max_new_tokens: int  # 0 only with echo
    n: int = 1
    stop: tuple[str, ...] = ()
    log_probabilities: int | None = None
    echo: bool = False
    seconds: float = 600.0  # then an answer ends where it is


@dataclass(frozen=True)
class Piece:
    """What became certain of one choice: text, the tokens that were read or drawn for it, and in the last piece why it ended.

    The token that ends an answer has no text, and is told with echo alone, where every token counts.
    """

    choice: int
    text: str
    tokens: tuple[tuple[int, LogProbability | None], ...] = ()
    finish: Finish | None = None


class Answers:
    """The choices of one request: prompt 0's ``n`` answers, then prompt 1's. ``start`` it, iterate over it, and ``cancel`` it whatever
    happens; after its end too that does no harm."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], how: How):
        self.engine, self.tokenizer, self.prompts, self.how = engine, tokenizer, prompts, how
        self.prompt_tokens = sum(map(len, prompts))
        self.completion_tokens = 0
        self.first_token_seconds: float | None = None
        self._began = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[tuple[int, Token | Ended] | None] = asyncio.Queue()
        self._timer = self._loop.call_later(how.seconds, self._told.put_nowait, None)
        self._scores: list[list[LogProbability | None]] = []
        self._answers = [Answer(TextStream(tokenizer), how.stop) for _ in prompts for _ in range(how.n)]
        self._stop_ids = frozenset(tokenizer.stop_ids)
        self._requests = [self._request(number) for number in range(len(self._answers))]

    @property
    def reused_tokens(self) -> int:
        return sum(request.reused for request in self._requests)

    def start(self) -> None:
        """``ValueError``, ``FullError`` and ``ClosedError`` as of ``Engine.submit``: nothing of it is taken then. As many may wait for
        log-probabilities of their prompts as for the engine."""
        for number, prompt in enumerate(self.prompts):
            check(prompt, vocabulary=self.engine.model.config.vocab_size, context=self.engine.max_len, index=number)
        scored = self.how.echo and self.how.log_probabilities is not None
        if scored and len(_scoring) > self.engine.most_waiting:
            raise FullError
        if self.how.max_new_tokens:
            self.engine.submit(*self._requests)
        if scored:
            _scoring.add(self)

    def cancel(self) -> None:
        self._timer.cancel()
        _scoring.discard(self)
        for request in self._requests:
            request.cancel()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """``FailedError`` where the engine gave one of the choices up, ``LateError`` where none has begun when the time is over."""
        if self in _scoring:
            await self._score()
        if self.how.echo:
            for number in range(len(self._answers)):
                yield self._echoed(number)
        going = set(range(len(self._answers)))
        if not self.how.max_new_tokens:
            for number in going:
                yield Piece(number, "", finish="length")
            return
        while going:
            told = await self._told.get()
            if told is None:
                if not self.completion_tokens:
                    raise LateError
                for number in going:
                    yield self._last(number, "length")
                return
            number, what = told
            if number not in going:  # tokens that came before the cancellation did
                continue
            piece = self._piece(number, what)
            if piece.finish:
                going.remove(number)
                self._requests[number].cancel()
            yield piece

    def _scored(self, prompt: Sequence[int]) -> list[LogProbability | None]:
        return apart(prompt_log_probabilities, self.engine.model, prompt, self.how.log_probabilities)

    async def _score(self) -> None:
        try:
            async with asyncio.timeout_at(self._timer.when()):
                for prompt in self.prompts:
                    self._scores.append(await self._loop.run_in_executor(_scorer, self._scored, prompt))
        except TimeoutError:
            raise LateError from None
        _scoring.discard(self)

    def _request(self, number: int) -> Request:
        prompt, copy = divmod(number, self.how.n)
        seed = self.how.sampling.seed

        # Not self: what holds each other is freed late, and the engine, its model and its cache with it.
        loop, told = self._loop, self._told

        def tell(what: Token | Ended) -> None:  # in the engine's thread
            loop.call_soon_threadsafe(told.put_nowait, (number, what))

        return Request(
            self.prompts[prompt],
            self.how.sampling if seed is None else replace(self.how.sampling, seed=seed + copy),
            self.how.max_new_tokens,
            tell,
            stop_ids=self._stop_ids,
            log_probabilities=self.how.log_probabilities,
        )

    def _piece(self, number: int, what: Token | Ended) -> Piece:
        if not isinstance(what, Token):
            if what in ("failed", "cancelled"):
                raise FailedError
            return self._last(number, "length")
        self.completion_tokens += 1
        if self.first_token_seconds is None:
            self.first_token_seconds = time.monotonic() - self._began
        token = (what.id, what.log_probability)
        if what.id in self._stop_ids:
            return replace(self._last(number, "stop"), tokens=(token,) if self.how.echo else ())
        answer = self._answers[number]
        return Piece(number, answer.push(what.id), (token,), "stop" if answer.stopped else None)

    def _last(self, number: int, finish: Finish) -> Piece:
        answer = self._answers[number]
        text = answer.finish()
        return Piece(number, text, (), "stop" if answer.stopped else finish)

    def _echoed(self, number: int) -> Piece:
        prompt = number // self.how.n
        ids = self.prompts[prompt]
        prefix = len(self.tokenizer.prefix)
        said = ids[prefix:] if tuple(ids[:prefix]) == self.tokenizer.prefix else ids
        scores = self._scores[prompt] if self._scores else [None] * len(ids)
        return Piece(number, self.tokenizer.decode(said), tuple(zip(ids, scores, strict=True)))
