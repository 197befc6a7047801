"""What a server served, from when until when: entries of the audit trail in a file of the serving host, which needs no registry.

The file is only appended to, and is its account's alone. Several servers may write the same one.
"""

import fcntl
import getpass
import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.registry import hash_chain

FILE = Path("serving-log.jsonl")  # in the project, of servers of registered versions


class ServingLog:
    """Appends entries to a file of mode 0600; an entry is on the disk when ``append`` returns."""

    def __init__(self, path: Path):
        """The first entry makes the file. ``ValueError`` for what is no regular file or not this account's alone; ``OSError`` where it
        cannot be written.
        """
        self.path = path
        self._who = f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}"
        if os.path.lexists(path):
            with _locked(path):
                pass
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            raise OSError(f"{path} cannot be written: name another file with --serving-log")

    def append(self, verb: str, model: str, version: str, *, why: str, evidence: str = "") -> None:
        """Add an entry on a version of a model; ``version`` is empty for a directory, ``evidence`` the SHA-256 of its passport.

        ``OSError`` where it cannot be stored; then nothing of it stays.
        """
        event: dict[str, Any] = {"verb": verb, "model": model, "version": int(version) if version else None, "who": self._who}
        event |= {"when": datetime.now(UTC).isoformat(timespec="seconds"), "why": why, "evidence": evidence}
        with _locked(self.path) as file:
            content = _read(file)
            whole = content[: content.rfind(b"\n") + 1]  # half a line is of a server that was killed
            os.ftruncate(file, len(whole))
            event["previous"] = hash_chain.digest_before(whole.decode(errors="replace").splitlines())
            line = json.dumps(event).encode() + b"\n"
            try:
                if os.write(file, line) < len(line):
                    raise OSError(f"{self.path} cannot be written: the disk is full")
                os.fsync(file)
            except OSError:
                os.ftruncate(file, len(whole))
                raise


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ValueError(f"{path} must be a regular file of this account that nobody else may write")
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _read(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


def texts(path: Path) -> dict[int, str]:
    """The entries as they are stored, by their numbers; ``OSError`` where there is no such file."""
    return dict(enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1))
