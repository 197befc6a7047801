"""Where Prefect's server is, and its key: ``.env`` says it to every command that is typed in this directory, while ``make deploy`` runs.

Whoever reaches a server without a key can have its worker run any command as the worker's account, and every account of a machine reaches
loopback.

Prefect reads that file itself, after the environment and before prefect.toml. A lock tells whether ``make deploy`` still runs, so that
nobody waits for the server of one that was killed.
"""

import fcntl
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dotenv import dotenv_values

from tasks.runtime.files import whole

ENV = Path(".env")
KEY, SERVER_KEY = "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"  # Prefect's names: what is sent, what is demanded
LOCK = Path(".cache/deploy.lock")
MARK = "# while make deploy runs"
ATTEMPTS = 20  # to get the lock, which another may only hold to look whether it is free


def address() -> str:
    """What the environment or ``.env`` says, as Prefect takes it; empty where they say nothing."""
    forget_dead_server()
    return os.environ.get("PREFECT_API_URL") or dotenv_values(ENV).get("PREFECT_API_URL") or ""


@contextmanager
def only_here() -> Iterator[None]:
    """One at a time in this directory; afterwards ``.env`` names no server of ours. ``SystemExit`` where another runs."""
    LOCK.parent.mkdir(exist_ok=True)
    with open(LOCK, "w") as lock:
        for _ in range(ATTEMPTS):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        else:
            sys.exit("deploy: it runs in this directory already")
        _write(_others())
        try:
            yield
        finally:
            _write(_others())


def make_key() -> None:
    """Have the server that is started next, and whoever asks it from this process on, use a key: the user's, or a new one."""
    key = os.environ.get(KEY) or f"pipeline:{secrets.token_urlsafe(24)}"
    os.environ[KEY] = os.environ[SERVER_KEY] = key


def point_here(server: str) -> None:
    """Have Prefect's commands in this directory use a server with its key; other lines of ``.env`` stay."""
    _write([*_others(), f"PREFECT_API_URL={server} {MARK}", f"{KEY}={os.environ[KEY]} {MARK}"])


def forget_dead_server() -> None:
    """Take out of ``.env`` what a killed ``make deploy`` left there."""
    if _lines() == _others():
        return
    LOCK.parent.mkdir(exist_ok=True)
    with open(LOCK, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # it runs
            return
        _write(_others())
    print(f"{ENV} named the Prefect server of a make deploy that was killed; that line was removed", file=sys.stderr, flush=True)


def _lines() -> list[str]:
    return ENV.read_text(encoding="utf-8").splitlines() if ENV.is_file() else []


def _others() -> list[str]:
    """The lines that are not ours."""
    return [line for line in _lines() if not line.endswith(MARK)]


def _write(lines: list[str]) -> None:
    if not lines:
        ENV.unlink(missing_ok=True)
    elif lines != _lines():
        with whole(ENV) as partial:
            partial.touch(mode=0o600)
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
