"""Files and folders that appear whole or not at all. Every write-then-rename of tasks/ and flows/ is one of these."""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

MAX_LISTED = 1_000  # files that a report lists one by one


@contextmanager
def whole(path: Path, *, unique: bool = False) -> Iterator[Path]:
    """A temporary name beside ``path`` to write a file or folder to; it gets its own name when the block ends without an error.

    What stands at ``path`` is replaced then. After an error nothing half-written stays. ``unique``: other processes may write the same
    path at the same time, so each has a temporary name of its own.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial" if unique else f".{path.name}.partial")
    remove(partial)
    try:
        yield partial
        if path.is_dir():
            remove(path)
        partial.replace(path)
    finally:
        remove(partial)


def write_whole(path: Path, content: object) -> None:
    """Write ``content`` as JSON."""
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def by_folder(names: Collection[str]) -> dict[str, str]:
    """What a report lists each file as: its name, or where there are more than MAX_LISTED, those of its folder with its ending."""
    if len(names) <= MAX_LISTED:
        return {name: name for name in names}
    return {name: str(PurePosixPath(name).parent / f"*{PurePosixPath(name).suffix}") for name in names}
