"""The pipeline as a Prefect flow: ``python -m flows.pipeline``, or a deployment of prefect.yaml. The only importer of prefect.

One task per DVC stage. A task asks DVC whether its stage is up to date and, if not, runs ``dvc repro --single-item`` in a process
group of its own, which ends with the flow however that ends. DVC alone decides what runs; the flow takes no hyper-parameters.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

import networkx
import psutil
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed, State

from tasks.record import write_whole

ROOT = Path(__file__).resolve().parent.parent
DATA = "data.dvc"
# What DVC prints when it did not run a stage's command.
RESTORED = ("is cached - skipping run", "didn't change, skipping")
BUSY = ("is busy", "Unable to acquire lock")
LINES_TOLD = 6  # of a failed stage's output, in its state
LONGEST_WAIT = 3600.0  # seconds for another DVC process on this repository to end
SECONDS_TO_STOP = (10, 5, 5)  # after SIGINT, SIGTERM, SIGKILL


@flow(name="pipeline")
def pipeline() -> State[Any]:
    """Version what is in ``data/``, then bring every stage up to date, in the order of the stages' graph."""
    os.chdir(ROOT)
    if not Path("data").exists():
        return Failed(message="data/ is missing: run 'dvc pull', or 'python -m tasks.corpus data', or put your own files there")
    free_stale_locks()
    state: State[Any] = version_data(return_state=True)
    for stage in stages():
        if not state.is_completed():
            break
        state = dvc_stage.with_options(task_run_name=stage)(stage, return_state=True)
    return Completed(message="every stage is up to date") if state.is_completed() else Failed(message=state.message)


def stages() -> list[str]:
    """The stages of dvc.yaml, each after those whose outputs it reads."""
    with Repo(str(ROOT)) as repo:
        return [s.name for s in networkx.dfs_postorder_nodes(repo.index.graph) if hasattr(s, "name")]


@task(task_run_name="data", cache_policy=NO_CACHE)
def version_data() -> State[Any]:
    """Take a changed raw corpus into data.dvc; says whether it changed."""
    return bring_up_to_date(DATA, ["repro", DATA], ran="Versioned")


@task(cache_policy=NO_CACHE)
def dvc_stage(stage: str) -> State[Any]:
    """``Cached``: nothing to do. ``Restored``: DVC knew the result. ``Completed``: the stage's command ran."""
    return bring_up_to_date(stage, ["repro", "--single-item", stage], ran="Completed")


def bring_up_to_date(target: str, arguments: list[str], *, ran: str) -> State[Any]:
    logger = get_run_logger()
    if is_up_to_date(target):
        return Completed(name="Cached", message=f"{target} is up to date")
    lines = []
    try:
        for line in dvc_lines(arguments):
            lines.append(line)
            logger.info(line)
    except subprocess.CalledProcessError:
        return Failed(message=f"{target} failed:\n" + "\n".join(lines[-LINES_TOLD:]))
    if target == DATA:
        logger.warning("the raw corpus changed; data.dvc has its new version")
    restored = any(words in line for line in lines for words in RESTORED)
    return Completed(name="Restored" if restored else ran, message=f"{target} is up to date now")


def is_up_to_date(target: str) -> bool:
    """DVC's own answer, in this process; waits for another DVC process to end."""
    for _ in waits():
        try:
            with Repo(str(ROOT)) as repo:
                return not repo.status(targets=[target])
        except LockError:
            continue
        except DvcException as error:
            if not any(words in str(error) for words in BUSY):
                raise
    raise TimeoutError(f"another DVC process has kept this repository busy for {LONGEST_WAIT:.0f} s")


def dvc_lines(arguments: list[str]) -> Iterator[str]:
    """Run DVC and yield the lines that it prints; ``CalledProcessError`` when it fails."""
    for _ in waits():
        lines: list[str] = []
        with process([sys.executable, "-m", "dvc", *arguments]) as child:
            assert child.stdout
            for line in child.stdout:
                if line.strip():
                    lines.append(line.rstrip())
                    yield lines[-1]
        if child.returncode == 0:
            return
        if not any(words in line for line in lines[-5:] for words in BUSY):
            raise subprocess.CalledProcessError(child.returncode, ["dvc", *arguments])
    raise TimeoutError(f"another DVC process has kept this repository busy for {LONGEST_WAIT:.0f} s")


def free_stale_locks() -> None:
    """Drop what dead processes hold in DVC's lock file; DVC takes one for alive whose end nobody has collected."""
    path = ROOT / ".dvc" / "tmp" / "rwlock"
    try:
        held = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return
    writers = {name: holder for name, holder in held.get("write", {}).items() if is_alive(holder["pid"])}
    readers = {name: [h for h in holders if is_alive(h["pid"])] for name, holders in held.get("read", {}).items()}
    kept = {"write": writers, "read": {name: holders for name, holders in readers.items() if holders}}
    if kept != held:
        get_run_logger().warning("a DVC process died and left its lock behind; it was removed")
        write_whole(path, kept)


def is_alive(number: int) -> bool:
    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def waits() -> Iterator[float]:
    """Attempts at something that another DVC process may hold up: at once, then every two seconds, up to the longest wait."""
    start = time.monotonic()
    while (waited := time.monotonic() - start) < LONGEST_WAIT:
        if waited >= 1:
            get_run_logger().info(f"another DVC process works on this repository; waiting ({waited:.0f} s)")
        yield waited
        time.sleep(2)


@contextmanager
def process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A child in a session of its own, so that it and all its children end with this block, or with this process."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "tasks.lifetime", *command],
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


if __name__ == "__main__":
    result = pipeline(return_state=True)
    if not result.is_completed():
        sys.exit(f"pipeline: {result.message}")
