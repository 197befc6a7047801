"""Progress bars with rate and remaining time; plain lines, one every few seconds, where there is no terminal."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS_PER_LINE = 10.0


class _Lines(tqdm):  # type: ignore[type-arg]
    """A bar that prints each of its states as a line of its own."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:  # type: ignore[override]  # noqa: ARG002
        if self.n:
            print(msg or str(self), file=self.fp, flush=True)
        return True


def progress(items: Iterable[Any] | None = None, *, total: int | None = None, unit: str, desc: str, done: int = 0) -> "tqdm[Any]":
    """A bar over ``items``, or one to update by hand."""
    if sys.stderr.isatty():
        return tqdm(items, total=total, unit=unit, desc=desc, initial=done, unit_scale=True, dynamic_ncols=True, file=sys.stderr)
    shape = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} {elapsed}<{remaining}, {rate_fmt}{postfix}"
    kind: Any = _Lines
    return kind(
        items,
        total=total,
        unit=unit,
        desc=desc,
        initial=done,
        unit_scale=True,
        bar_format=shape,
        mininterval=SECONDS_PER_LINE,
        maxinterval=1e9,
        file=sys.stderr,
    )
