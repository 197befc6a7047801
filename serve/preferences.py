"""Preference records: which of two answers a person chose, one line of JSON each, in a file of this account alone.

The file holds prompts and answers, so it exists only where the server is started with ``--preferences``, and nothing of it is logged.
"""

import fcntl
import json
import os
import stat
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from serve.rollout import Rollout
from serve.schema import MAX_MESSAGES, ChatMessage
from serve.strict import JsonSchemaField, Strict, Text

BLOCK = 1 << 16  # bytes that are read at a time, to find the end of the last line


class ComparedAnswer(Strict):
    """One of the two answers, as the client got it, with what was asked: a chat or a text."""

    model: Annotated[Text, Field(max_length=200)]
    fingerprint: Annotated[Text, Field(max_length=200)]  # the answer's system_fingerprint
    prompt: Text | Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    text: Text


class Preference(Strict):
    """The body of ``POST /preferences``."""

    choice: Literal["first", "second", "tie", "both_bad"]
    answers: Annotated[list[ComparedAnswer], Field(min_length=2, max_length=2)]  # first, second
    settings: JsonSchemaField = Field(description="the rest of the request, which both got: sampling settings, seed, response_format")


class PreferenceFile:
    """Appends records to a file of mode 0600. A record is on the disk when ``append`` returns, and a line is whole or absent."""

    def __init__(self, path: Path):
        """Open or make the file; half a line at its end, of a server that was killed, is cut off.

        ``ValueError`` for what is no regular file, that others may read, or that another server has open. ``OSError`` as of ``open``.
        """
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            self._check(path)
            os.ftruncate(self._file, _end_of_last_line(self._file))
        except BaseException:
            os.close(self._file)
            raise

    def _check(self, path: Path) -> None:
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"--preferences: {path} is no regular file")
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise ValueError(f"--preferences: {path} holds text of patients: it must be yours, and of mode 0600")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"--preferences: another server writes {path}") from None

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record. ``OSError`` if it cannot be stored; then nothing of it stays."""
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            size = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line) < len(line):
                    raise OSError("the disk is full")
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, size)
                raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def record(preference: Preference, rollouts: Mapping[str, Rollout]) -> dict[str, Any]:
    """The preference as it is stored, with the time and the SHA-256 of each version's passport, if that version still answers."""
    answers = preference.model_dump(mode="json", exclude_unset=True)["answers"]
    digests = [_passport_digest(answer, rollouts) for answer in preference.answers]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "choice": preference.choice,
        "answers": [answer | {"passport_sha256": digest} for answer, digest in zip(answers, digests, strict=True)],
        "settings": preference.settings,
    }


def _passport_digest(answer: ComparedAnswer, rollouts: Mapping[str, Rollout]) -> str | None:
    rollout = rollouts.get(answer.model)
    return rollout.current.digest if rollout and rollout.current.fingerprint == answer.fingerprint else None


def _end_of_last_line(file: int) -> int:
    """The size of a file without what comes after its last line feed."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - BLOCK)
        if (index := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
            return start + index + 1
        end = start
    return 0
