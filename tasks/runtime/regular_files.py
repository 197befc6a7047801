"""Files that must be regular ones, looked at through one opening: what is no regular file then is not read, and keeps nobody waiting."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

MAX_BYTES = 256 << 20  # of what is read whole: what stands beside a model's weights; the passport of a million files needs less


def regular_sha256(path: Path) -> str:
    """SHA-256 of a file; empty where it is a link or no regular file at the moment when it is opened."""
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if file else ""


def read_regular(path: Path) -> bytes:
    """The bytes of a file; ``ValueError`` where it is a link or no regular file, or too large for what stands beside a model's weights."""
    try:
        with _opened(path) as file:
            content = file.read(MAX_BYTES + 1) if file else None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if content is None:
        raise ValueError(f"{path} is not a regular file")
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES} bytes")
    return content


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader | None]:
    """A file that is a regular one when it is opened, whatever it was a moment ago; opening a pipe does not wait for its writer."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise
        yield None
        return
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        yield None
        return
    with open(number, "rb") as file:
        yield file
