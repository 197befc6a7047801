"""Requests over one model, continued together: they join and leave between steps, each drawn by its own settings.

    submit ──► waiting ──(a slot is free)──► reading, CHUNK prompt tokens per turn ──► going, a token per turn ──► ended

What it draws does not depend on who else is there: a prompt is read in the same pieces whatever is known of it, because a product of
another shape rounds otherwise.

One thread does all of it. What it says to a request it says by the request's own ``tell``, which must not block. What fails ends the
requests that it concerns and no others. It knows nothing of HTTP or text; the stop strings of a text are cancellations here.
"""

import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from model.generation.generate import Batch, SequenceState, Token, check
from model.generation.sampling import Sampling
from model.llama import Transformer

CHUNK = 64  # prompt tokens read between two steps of the others
R = TypeVar("R")
Ended = Literal["stop", "length", "cancelled", "failed"]
_log = logging.getLogger(__name__)


def apart(work: Callable[..., R], *arguments: Any, **options: Any) -> R:
    """``work`` in a thread that ends with it, for all that multiplies matrices outside of an engine's thread.

    OpenMP keeps a team of threads for each thread that ever did. Where these are more than the processors they sleep at every
    barrier instead of waiting for it, and reading a prompt takes twice as long (libgomp's throttled spin count; measured).
    """
    with ThreadPoolExecutor(1, thread_name_prefix="apart") as once:
        return once.submit(work, *arguments, **options).result()


class FullError(Exception):
    """So many requests wait that another is not taken."""


class ClosedError(Exception):
    """The engine takes no more requests."""


@dataclass(eq=False)
class Request:
    """A continuation that is asked for. ``tell`` gets every token, the one that stops it too, then how it ended."""

    prompt: Sequence[int]
    settings: Sampling
    max_new_tokens: int
    tell: Callable[[Token | Ended], None]
    stop_ids: frozenset[int] = frozenset()
    log_probabilities: int | None = None
    cancelled: bool = field(default=False, init=False)
    reused: int = field(default=0, init=False)  # prompt tokens that were not read again
    made: int = field(default=0, init=False)

    def cancel(self) -> None:
        """Ends before the next step; it may be called from any thread, and more than once."""
        self.cancelled = True


@dataclass(frozen=True)
class Load:
    """What goes on now."""

    waiting: int
    reading: int
    going: int
    positions: int  # of the cache, in use
    capacity: int


class Engine:
    """``slots`` sequences at a time, each of at most ``max_len`` tokens, prompt included: all the memory it ever takes. At most
    ``most_waiting`` requests wait for a slot."""

    def __init__(self, model: Transformer, *, slots: int, max_len: int, most_waiting: int):
        self.model = model
        self._batch = Batch(model, slots=slots, max_len=max_len)
        self.max_len = self._batch.max_len
        self._slots, self.most_waiting = slots, most_waiting
        self._held: dict[int, list[int]] = {}  # whole chunks of prompts that slots hold the keys and values of, after they leave too
        self._waiting: deque[Request] = deque()
        # A request is in one of the three at most, and its row holds a slot as long as it is in one of these two.
        self._reading: dict[Request, SequenceState] = {}
        self._going: dict[Request, SequenceState] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, *requests: Request) -> None:
        """All of them or none. ``ValueError`` for a prompt that cannot be continued and for more than there is ever room for,
        ``FullError`` where too many wait, ``ClosedError`` after ``close``."""
        if len(requests) > (most := self._slots + self.most_waiting):
            raise ValueError(f"{len(requests)} continuations at once are more than {most}")
        for request in requests:
            check(request.prompt, vocabulary=self.model.config.vocab_size, context=self.max_len)
            if request.max_new_tokens < 1:
                raise ValueError(f"the number of new tokens must be at least 1, is {request.max_new_tokens}")
        with self._changed:
            if self._closing:
                raise ClosedError
            free = self._slots - len(self._reading) - len(self._going)
            if len(self._waiting) + len(requests) > self.most_waiting + free:
                raise FullError
            self._waiting.extend(requests)
            self._changed.notify()

    def load(self) -> Load:
        with self._changed:
            rows = [*self._reading.values(), *self._going.values()]
            used = sum(self._batch.cache.lengths[row.slot] for row in rows)
            return Load(len(self._waiting), len(self._reading), len(self._going), used, self._slots * self.max_len)

    def close(self, timeout: float | None = None) -> bool:
        """Take no more requests and end when those that are here have; whether they did within ``timeout`` seconds, else they are
        cancelled."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if drained := not self._thread.is_alive():
            return drained
        with self._changed:
            for request in (*self._waiting, *self._reading, *self._going):
                request.cancel()
        self._thread.join()
        return False

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._reading or self._going):
                    if self._closing:
                        return
                    self._changed.wait()
            self._drop_cancelled()
            self._admit()
            self._read_on()
            self._step()

    def _drop_cancelled(self) -> None:
        with self._changed:
            gone = [r for r in (*self._waiting, *self._reading, *self._going) if r.cancelled]
            self._waiting = deque(r for r in self._waiting if not r.cancelled)
        for request in gone:
            self._end(request, "cancelled")

    def _admit(self) -> None:
        while len(self._reading) + len(self._going) < self._slots:
            with self._changed:
                if not self._waiting:
                    return
                request = self._waiting.popleft()
            try:
                row = self._batch.admit(request.prompt, request.settings, log_probabilities=request.log_probabilities)
                with self._changed:
                    self._reading[request] = row
                request.reused = self._reuse(row)
            except Exception as error:
                self._fail(error, request)

    def _reuse(self, row: SequenceState) -> int:
        """Take over what another slot, or this one's last sequence, holds of the same beginning, in whole chunks; how many tokens."""
        shared, source = max(((_shared(tokens, row.tokens), slot) for slot, tokens in self._held.items()), default=(0, 0))
        shared = _whole(min(shared, len(row.tokens) - 1))  # the last is read for the logits after it
        if shared:
            self._batch.cache.copy(source, row.slot, shared)
        self._held[row.slot] = row.tokens[:shared]
        return shared

    def _read_on(self) -> None:
        """Some more of one prompt; the next time it is another's turn."""
        if not self._reading:
            return
        request, row = next(iter(self._reading.items()))
        try:
            whole = self._batch.prefill(row, CHUNK)
        except Exception as error:
            self._fail(error, request)
            return
        self._held[row.slot] = row.tokens[: _whole(self._batch.cache.lengths[row.slot])]
        with self._changed:
            del self._reading[request]
            (self._going if whole else self._reading)[request] = row

    def _step(self) -> None:
        """The next token of every sequence, and its reading for those that go on."""
        for request, row in list(self._going.items()):
            try:
                self._draw(request, row)
            except Exception as error:  # a distribution that cannot be drawn from is nobody else's matter
                self._fail(error, request)
        if not self._going:
            return
        try:
            self._batch.step(list(self._going.values()))
        except Exception as error:
            self._fail(error, *self._going)

    def _draw(self, request: Request, row: SequenceState) -> None:
        token = self._batch.sample(row)
        request.made += 1
        self._tell(request, token)
        if token.id in request.stop_ids:
            self._end(request, "stop")
        elif request.made == request.max_new_tokens or self._batch.is_full(row):
            self._end(request, "length")

    def _fail(self, error: Exception, *requests: Request) -> None:
        # Without the error's own words: they may be about what was asked.
        _log.error("%d requests failed: %s\n%s", len(requests), type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        for request in requests:
            self._end(request, "failed")

    def _end(self, request: Request, how: Ended) -> None:
        """The one way out, for a request that is in none of the queues too."""
        with self._changed:
            row = self._reading.pop(request, None) or self._going.pop(request, None)
        if row:
            if how == "failed":  # what its slot holds now is not known
                self._held.pop(row.slot, None)
            self._batch.release(row)
        self._tell(request, how)

    def _tell(self, request: Request, what: Token | Ended) -> None:
        try:
            request.tell(what)
        except Exception as error:  # nobody listens any more
            _log.warning("a request cannot be told anything: %s", type(error).__name__)
            request.cancel()


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def _whole(count: int) -> int:
    """So many tokens of a prompt's first ``count`` as make whole chunks."""
    return count // CHUNK * CHUNK
