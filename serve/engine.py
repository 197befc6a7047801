"""Continuous batching over one model: requests are added and released between decoding steps, each with its own sampling settings.

    submit ──► waiting ──(a slot is free)──► prefill, a chunk of the prompt per turn ──► running, a token per turn ──► finished

The tokens of a request do not depend on the other requests. A prompt is always prefilled in the same chunks, whether its prefix is
cached or not, because a matrix product of another shape rounds differently. Products of integers on the CPU do not: with them prompts are
read in small chunks beside other requests, in large ones while there are none, and continue a cached prefix of any length.

One thread does all the work. It reports to a request through the request's own ``emit``, which must not block. An error ends only the
requests that it concerns. The engine knows nothing of HTTP or text; a stop string of a text arrives here as a cancellation.
"""

import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from model.generation.adapters import Adapter
from model.generation.generate import Batch, SequenceState, Token, check
from model.generation.grammar import Form
from model.generation.sampling import Sampling
from model.llama import Transformer

# Prompt tokens that are prefilled between two decoding steps of the other requests. In chunks of 128, a prompt of 1,500 took 1.37 times
# the seconds that it takes at once, in these 1.13.
CHUNK = 256
GPU_CHUNK = 512  # likewise: a GPU reads all weights for 512 as fast as for 64
SMALL_CHUNK, LARGE_CHUNK = 64, 512  # where any will do: beside other requests, and while there are none
R = TypeVar("R")
E = TypeVar("E")
FinishReason = Literal["stop", "length", "cancelled", "failed"]
_log = logging.getLogger(__name__)


def run_in_fresh_thread(work: Callable[..., R], *arguments: Any, **options: Any) -> R:
    """Run ``work`` in a thread that ends with it. For everything that multiplies matrices outside of an engine's thread.

    OpenMP keeps a team of threads for each thread that ever multiplied. When there are more of these than processors, they sleep at
    every barrier instead of spinning, and prefill takes twice as long (libgomp's throttled spin count; measured).
    """
    with ThreadPoolExecutor(1, thread_name_prefix="fresh") as pool:
        return pool.submit(work, *arguments, **options).result()


class QueueFull(Exception):
    """Too many requests wait already; try again later."""


class EngineClosed(Exception):
    """The engine takes no more requests."""


@dataclass(frozen=True)
class Progress:
    """What a request is at before its first token: its place in the queue, 0 once it has a slot, and the prompt tokens that are read."""

    queue: int
    read_tokens: int


@dataclass(eq=False)
class Request:
    """A prompt to continue. ``emit`` gets every token, also the one that stops the sequence, and then the finish reason.

    ``on_progress`` gets a ``Progress`` each time that it changes, before the first token; it must not block either.
    """

    prompt: Sequence[int]
    sampling: Sampling
    max_new_tokens: int
    emit: Callable[[Token | FinishReason], None]
    stop_ids: frozenset[int] = frozenset()
    log_probabilities: int | None = None  # alternatives per token; None: no log-probabilities
    form: Form | None = None  # which tokens may follow, where not all may
    adapter: Adapter | None = None  # of the engine's model, with which it is answered
    on_progress: Callable[[Progress], None] | None = None
    progress: Progress | None = field(default=None, init=False)  # that was emitted last
    cancelled: bool = field(default=False, init=False)
    cached_tokens: int = field(default=0, init=False)  # prompt tokens that came from the prefix cache
    new_tokens: int = field(default=0, init=False)  # sampled so far

    def cancel(self) -> None:
        """End the request before the next step. May be called from any thread, and more than once."""
        self.cancelled = True


@dataclass(frozen=True)
class Load:
    """The numbers of requests in each state, and the positions of the key/value cache that are in use and that exist."""

    waiting: int
    prefill: int
    running: int
    positions: int
    capacity: int


class Engine:
    """Decodes up to ``slots`` sequences at a time, each of at most ``max_len`` tokens, prompt included.

    All memory is allocated at the start. At most ``max_waiting`` requests wait for a slot.
    """

    def __init__(self, model: Transformer, *, slots: int, max_len: int, max_waiting: int):
        self.model = model
        self._batch = Batch(model, slots=slots, max_len=max_len, compiled=True)
        self.max_len = self._batch.max_len
        self._slots, self.max_waiting = slots, max_waiting
        self._chunk = GPU_CHUNK if model.norm.weight.is_cuda else CHUNK
        # The prefix cache: by slot, the prompt tokens (whole chunks) whose keys and values it holds, also after its sequence has ended, and
        # the adapter's key that they were computed with.
        self._prefix_cache: dict[int, tuple[object, list[int]]] = {}
        self._waiting: deque[Request] = deque()
        # A request is in at most one of these three; it has a slot while it is in one of the next two.
        self._prefill: dict[Request, SequenceState] = {}
        self._running: dict[Request, SequenceState] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, *requests: Request) -> None:
        """Add all of the requests to the queue, or none.

        ``ValueError`` for a prompt that cannot be continued, or for more requests than there are slots and places in the queue;
        ``QueueFull`` when too many wait now; ``EngineClosed`` after ``close``.
        """
        if len(requests) > (limit := self._slots + self.max_waiting):
            raise ValueError(f"{len(requests)} continuations at once are more than {limit}")
        for request in requests:
            check(request.prompt, vocabulary=self.model.config.vocab_size, context=self.max_len)
            if request.max_new_tokens < 1:
                raise ValueError(f"the number of new tokens must be at least 1, is {request.max_new_tokens}")
        with self._changed:
            if self._closing:
                raise EngineClosed
            free = self._slots - len(self._prefill) - len(self._running)
            if len(self._waiting) + len(requests) > self.max_waiting + free:
                raise QueueFull
            self._waiting.extend(requests)
            self._changed.notify()

    def load(self) -> Load:
        """The current load; may be called from any thread."""
        with self._changed:
            rows = [*self._prefill.values(), *self._running.values()]
            used = sum(self._batch.cache.lengths[row.slot] for row in rows)
            return Load(len(self._waiting), len(self._prefill), len(self._running), used, self._slots * self.max_len)

    def close(self, timeout: float | None = None) -> bool:
        """Take no more requests, and wait up to ``timeout`` seconds for those that are here. Then cancel the rest.

        Returns whether all of them ended by themselves.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if drained := not self._thread.is_alive():
            return drained
        with self._changed:
            for request in (*self._waiting, *self._prefill, *self._running):
                request.cancel()
        self._thread.join()
        return False

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._prefill or self._running):
                    if self._closing:
                        return
                    self._changed.wait()
            self._drop_cancelled()
            self._admit()
            self._report_progress()
            self._prefill_step()
            self._decode_step()

    def _drop_cancelled(self) -> None:
        with self._changed:
            cancelled = [r for r in (*self._waiting, *self._prefill, *self._running) if r.cancelled]
            self._waiting = deque(r for r in self._waiting if not r.cancelled)
        for request in cancelled:
            self._finish(request, "cancelled")

    def _admit(self) -> None:
        """Give free slots to waiting requests, first come first served."""
        while len(self._prefill) + len(self._running) < self._slots:
            with self._changed:
                if not self._waiting:
                    return
                request = self._waiting.popleft()
            try:
                row = self._batch.admit(
                    request.prompt,
                    request.sampling,
                    log_probabilities=request.log_probabilities,
                    form=request.form,
                    adapter=request.adapter,
                )
                with self._changed:
                    self._prefill[request] = row
                request.cached_tokens = self._reuse_prefix(row)
            except Exception as error:
                self._fail(error, request)

    def _reuse_prefix(self, row: SequenceState) -> int:
        """Copy the keys and values of the longest cached prefix, in whole chunks, into the row's slot; how many tokens these are."""
        cached = ((slot, tokens) for slot, (key, tokens) in self._prefix_cache.items() if key is _key(row))
        lengths = ((_common_prefix(tokens, row.tokens), slot) for slot, tokens in cached)
        length, source = max(lengths, default=(0, 0))
        length = self._whole_chunks(min(length, len(row.tokens) - 1))  # the last token is always computed, for the logits after it
        if length:
            self._batch.cache.copy(source, row.slot, length)
        self._prefix_cache[row.slot] = _key(row), row.tokens[:length]
        return length

    def _report_progress(self) -> None:
        with self._changed:
            states = [(request, Progress(position, 0)) for position, request in enumerate(self._waiting, start=1)]
        states += [(request, Progress(0, self._batch.cache.lengths[row.slot])) for request, row in self._prefill.items()]
        for request, progress in states:
            if request.on_progress and progress != request.progress:
                request.progress = progress
                self._deliver(request, request.on_progress, progress)

    def _prefill_step(self) -> None:
        """Prefill the next chunk of one prompt. The next call continues another prompt."""
        if not self._prefill:
            return
        request, row = next(iter(self._prefill.items()))
        try:
            complete = self._batch.prefill(row, self._next_chunk())
        except Exception as error:
            self._fail(error, request)
            return
        self._prefix_cache[row.slot] = _key(row), row.tokens[: self._whole_chunks(self._batch.cache.lengths[row.slot])]
        with self._changed:
            del self._prefill[request]
            (self._running if complete else self._prefill)[request] = row

    def _decode_step(self) -> None:
        """Sample the next token of every running sequence, and decode it for those that continue."""
        for request, row in list(self._running.items()):
            try:
                self._sample(request, row)
            except Exception as error:  # a distribution that cannot be sampled from concerns this request alone
                self._fail(error, request)
        if not self._running:
            return
        try:
            self._batch.step(list(self._running.values()))
        except Exception as error:
            self._fail(error, *self._running)

    def _sample(self, request: Request, row: SequenceState) -> None:
        token = self._batch.sample(row)
        request.new_tokens += 1
        self._emit(request, token)
        if token.id in request.stop_ids:
            self._finish(request, "stop")
        elif request.new_tokens == request.max_new_tokens or self._batch.is_full(row):
            self._finish(request, "length")

    def _fail(self, error: Exception, *requests: Request) -> None:
        # Without the error's message, which may quote a prompt.
        _log.error("%d requests failed: %s\n%s", len(requests), type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        for request in requests:
            self._finish(request, "failed")

    def _finish(self, request: Request, reason: FinishReason) -> None:
        """Release the request's slot, if it has one, and emit the reason. Every request ends here."""
        with self._changed:
            row = self._prefill.pop(request, None) or self._running.pop(request, None)
        if row:
            if reason == "failed":  # the contents of its slot are unknown now
                self._prefix_cache.pop(row.slot, None)
            self._batch.release(row, clear=reason == "failed")
        self._emit(request, reason)

    def _next_chunk(self) -> int:
        if not self._batch.reads_in_any_chunks:
            return self._chunk
        return LARGE_CHUNK if len(self._prefill) + len(self._running) == 1 else SMALL_CHUNK

    def _whole_chunks(self, count: int) -> int:
        """``count`` tokens, rounded down to whole chunks where these matter."""
        return count if self._batch.reads_in_any_chunks else count // self._chunk * self._chunk

    def _emit(self, request: Request, event: Token | FinishReason) -> None:
        self._deliver(request, request.emit, event)

    def _deliver(self, request: Request, emit: Callable[[E], None], event: E) -> None:
        try:
            emit(event)
        except Exception as error:  # the receiver is gone
            _log.warning("a request cannot receive its tokens and is cancelled: %s", type(error).__name__)
            request.cancel()


def _key(row: SequenceState) -> object:
    return row.adapter.key if row.adapter else None


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of tokens that both begin with."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
