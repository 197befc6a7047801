"""A full disk, told in a sentence: which path did not fit, and what makes room.

The libraries that write for us say it in many ways, and some do not say it at all.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
WORDS = ("No space left on device", "os error 28", "Disk quota exceeded", "database or disk is full")
NOTHING_LEFT = 1 << 20  # bytes; with less than that, an error that does not speak of the disk is taken for one of it


@contextmanager
def told_when_full(paths: Iterable[Path]) -> Iterator[None]:
    """An error in this block that comes from a full disk is an ``OSError`` which says so. ``places``: where the block writes."""
    try:
        yield
    except Exception as error:
        if not (sentence := full(error, paths)):
            raise
        raise OSError(sentence) from error


def full(error: BaseException, paths: Iterable[Path]) -> str:
    """Where the error, or what led to it, is a full disk, a sentence that says so; else nothing."""
    errors = list(_all(error))
    numbers = [e for e in errors if isinstance(e, OSError) and e.errno in FULL]
    room = {path: _free(path) for path in paths}
    fullest = min(room, key=lambda path: room[path])
    if numbers:
        named = next((Path(os.fsdecode(e.filename)) for e in numbers if isinstance(e.filename, str | bytes)), fullest)
        return f"No space left on device: {named} did not fit; make room, for instance with 'make gc', and run it again"
    said = any(words in str(e) for e in errors for words in WORDS)
    if said or (room[fullest] < NOTHING_LEFT and not all(isinstance(e, ValueError) for e in errors)):
        left = f"the disk of {fullest} has {room[fullest] / 1e6:,.1f} MB left"
        return f"{type(error).__name__}: {error}; {left}; make room, for instance with 'make gc', and run it again"
    return ""


def short_of_room(written: Iterable[Path], cache: Path) -> str:
    """Where DVC may find no room to copy what was written into its cache, a sentence that says so; else nothing."""
    size = sum(p.stat().st_size for top in written for p in (top.rglob("*") if top.is_dir() else [top]) if p.is_file())
    free = _free(cache)
    return (
        f"DVC's cache has room for {free / 1e6:,.1f} MB, and may need {size / 1e6:,.1f} MB now; 'make gc' makes room" if size > free else ""
    )


def _all(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _free(path: Path) -> int:
    """Bytes for us on the disk of a path that need not exist yet."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    room = os.statvfs(there)
    return room.f_bavail * room.f_frsize
