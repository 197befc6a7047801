"""DVC as a flow sees it: what is up to date, and a process of it that ends with the flow, however that ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import networkx
import psutil
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from prefect import get_run_logger

from tasks.runtime import dvc
from tasks.runtime.files import write_whole
from tasks.runtime.permissions import CACHES

ROOT = Path(__file__).resolve().parent.parent
SITE_CACHE = ROOT / CACHES["DVC_SITE_CACHE_DIR"]
GUARD = "check_params"  # a stage for DVC, which must stop before it removes outputs; for people it is none
# What DVC says while another DVC process works on the same repository.
BUSY = ("is busy", "Unable to acquire lock")
LONGEST_WAIT = 3600.0  # seconds for another DVC process on this repository to end
SECONDS_TO_STOP = (10, 5, 5)  # after SIGINT, SIGTERM, SIGKILL


def stages(through: str = "") -> list[str]:
    """The stages of dvc.yaml, or those that ``through`` needs and itself, each after those whose outputs it reads."""
    with _repository() as repo:
        graph = repo.index.graph
        last = next(s for s in graph if getattr(s, "name", "") == through) if through else None
        return [s.name for s in networkx.dfs_postorder_nodes(graph, last) if hasattr(s, "name") and s.name != GUARD]


def is_up_to_date(target: str) -> bool:
    """DVC's own answer, in this process; waits for another DVC process to end."""
    for _ in _waits():
        try:
            with _repository() as repo:
                return not repo.status(targets=[target])
        except LockError:
            continue
        except DvcException as error:
            if not any(words in str(error) for words in BUSY):
                raise
    raise TimeoutError(f"another DVC process has kept this repository busy for {LONGEST_WAIT:.0f} s")


def changes() -> dict[str, Any]:
    """What DVC calls changed, by stage or .dvc file; without stages that are ``always_changed`` and no more than that."""
    for _ in _waits():
        try:
            with _repository() as repo:
                return {name: reasons for name, reasons in repo.status().items() if reasons != ["always changed"]}
        except LockError:
            continue
    raise TimeoutError(f"another DVC process has kept this repository busy for {LONGEST_WAIT:.0f} s")


def dvc_lines(arguments: list[str]) -> Iterator[str]:
    """Run DVC and yield the lines that it prints, after another DVC process if need be; ``CalledProcessError`` when it fails."""
    for _ in _waits():
        lines: list[str] = []
        try:
            for line in lines_of(dvc.command(*arguments)):
                lines.append(line)
                yield line
        except subprocess.CalledProcessError:
            if not any(words in line for line in lines[-5:] for words in BUSY):
                raise
            continue
        return
    raise TimeoutError(f"another DVC process has kept this repository busy for {LONGEST_WAIT:.0f} s")


def lines_of(command: list[str]) -> Iterator[str]:
    """Run a command and yield the lines that it prints; ``CalledProcessError`` when it fails."""
    with _process(command) as child:
        assert child.stdout
        for line in child.stdout:
            if line.strip():
                yield line.rstrip()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)


def has_remote() -> bool:
    """Whether DVC has a default remote to pull from."""
    with _repository() as repo:
        return bool(repo.config.get("core", {}).get("remote"))


def free_stale_locks() -> None:
    """Drop what dead processes hold in DVC's lock file; DVC takes one for alive whose end nobody has collected."""
    path = ROOT / ".dvc" / "tmp" / "rwlock"
    try:
        locks = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return
    written, read = locks.get("write", {}), locks.get("read", {})
    if all(_is_alive(holder["pid"]) for holder in [*written.values(), *chain.from_iterable(read.values())]):
        return
    writers = {name: holder for name, holder in written.items() if _is_alive(holder["pid"])}
    readers = {name: [h for h in holders if _is_alive(h["pid"])] for name, holders in read.items()}
    get_run_logger().warning("a DVC process died and left its lock behind; it was removed")
    write_whole(path, {"write": writers, "read": {name: holders for name, holders in readers.items() if holders}})


def _repository() -> Repo:
    """The project's, whatever the working directory is: from that DVC would take a relative path to its site cache."""
    return Repo(str(ROOT), config={"core": {"site_cache_dir": str(SITE_CACHE)}})


def _is_alive(number: int) -> bool:
    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _waits() -> Iterator[float]:
    """Attempts at something that another DVC process may hold up: at once, then every two seconds, up to the longest wait."""
    start = time.monotonic()
    while (waited := time.monotonic() - start) < LONGEST_WAIT:
        if waited >= 1:
            get_run_logger().info(f"another DVC process works on this repository; waiting ({waited:.0f} s)")
        yield waited
        time.sleep(2)


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A child in a session of its own, so that it and all its children end with this block, or with this process."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    environment.setdefault("DVC_SITE_CACHE_DIR", str(SITE_CACHE))
    child = subprocess.Popen(
        [sys.executable, "-m", "tasks.runtime", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    try:
        yield child
        child.wait()
    finally:
        _stop(child)


def _stop(child: subprocess.Popen[str]) -> None:
    for number, seconds in zip((signal.SIGINT, signal.SIGTERM, signal.SIGKILL), SECONDS_TO_STOP, strict=True):
        if child.poll() is not None and not _group_lives(child.pid):
            return
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (child.poll() is None or _group_lives(child.pid)):
            time.sleep(0.05)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
