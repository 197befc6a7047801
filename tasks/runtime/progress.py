"""Progress in whole numbers: a line that is drawn again on a terminal, else a line now and then, without control characters.

    fine-tuning: [######..........]  38 %, 9 of 24 steps, 1 min 20 s left, loss 1.204

There is no estimate of what is left before a rate was measured: the first item also pays for what is warmed up.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TextIO, TypeVar, overload

from tasks.runtime.words import duration

T = TypeVar("T")
SECONDS_PER_DRAW = 0.1
FIRST_LINE, SECONDS_PER_LINE = 10.0, 60.0  # in a log: the first line after, then ever fewer up to one a minute
MIN_MEASURED = 2.0  # seconds of a rate that an estimate is made of
MIN_BAR, MAX_BAR = 8, 30  # characters


class Progress(Generic[T]):
    """How much of a work is done; ``update`` says so, ``close`` ends the line."""

    def __init__(self, items: Sequence[T], total: int, unit: str, desc: str, done: int, stream: TextIO):
        self._items, self._total, self._unit, self._desc, self._stream = items, total, unit, desc, stream
        self._done, self._note, self._closed = done, "", False
        self._first: tuple[int, float] | None = None  # what was done, and when, after the first update
        self._began = self._drawn = time.monotonic()
        self._terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = False

    def __iter__(self) -> Iterator[T]:
        try:
            for item in self._items:
                yield item
                self.update(1)
        finally:
            self.close()

    def note(self, text: str) -> None:
        """What stands at the end of the line from the next update on."""
        self._note = text

    def update(self, count: int = 1) -> None:
        """``count`` more items are done."""
        self._done += count
        now = time.monotonic()
        self._first = self._first or (self._done, now)
        if now - self._drawn >= (SECONDS_PER_DRAW if self._terminal else self._pause(now)) or (self._terminal and not self._shown):
            self._show(now)

    def close(self) -> None:
        """End the line; the last one says how long it took."""
        if not self._closed and self._done and (self._terminal or self._shown or time.monotonic() - self._began >= 1):
            self._show(time.monotonic(), last=True)
        self._closed = True

    def _pause(self, now: float) -> float:
        return min(max(FIRST_LINE, (now - self._began) / 4), SECONDS_PER_LINE)

    def _show(self, now: float, *, last: bool = False) -> None:
        self._drawn, self._shown = now, True
        if self._terminal:
            width = shutil.get_terminal_size((80, 24)).columns - 1
            print(f"\r{self._line(now, width, last=last)}\x1b[K", end="\n" if last else "", file=self._stream, flush=True)
        else:
            print(self._line(now, last=last), file=self._stream, flush=True)

    def _line(self, now: float, width: int = 0, *, last: bool = False) -> str:
        """One line; with a ``width`` of at most so many characters, and with a bar where there is room for one."""
        parts = [f"{100 * self._done // max(self._total, 1)} %", f"{self._done:,} of {self._total:,} {self._unit}"]
        if last and self._done >= self._total:
            parts.append(f"{duration(now - self._began)} in all")
        elif (left := self._left(now)) is not None:
            parts.append(f"{duration(left)} left")
        text = ", ".join([*parts, *([self._note] if self._note else [])])
        room = min(width - len(self._desc) - len(text) - 5, MAX_BAR)
        if room < MIN_BAR:
            return f"{self._desc}: {text}"[: width or None]
        full = min(room * self._done // max(self._total, 1), room)
        return f"{self._desc}: [{'#' * full}{'.' * (room - full)}] {text}"

    def _left(self, now: float) -> float | None:
        """Seconds, by the rate since the first update."""
        count, since = self._first or (self._done, now)
        if self._done == count or now - since < MIN_MEASURED:
            return None
        return (self._total - self._done) * (now - since) / (self._done - count)


@overload
def progress(*, total: int, unit: str, desc: str, done: int = 0) -> Progress[None]: ...
@overload
def progress(items: Sequence[T], *, unit: str, desc: str) -> Progress[T]: ...
def progress(items: Sequence[Any] = (), *, total: int | None = None, unit: str, desc: str, done: int = 0) -> Progress[Any]:
    """A line over ``items``, or one to update by hand, on standard error; ``unit``: the plural of what is counted."""
    return Progress(items, len(items) if total is None else total, unit, desc, done, sys.stderr)
