"""The flow that polls: it runs the pipeline when the raw corpus or the code changed, and says how new records differ.

A run that failed on its input is not tried again before something changes; one that failed for what did not answer is.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from flows import prefect_address

prefect_address.forget_dead_server()  # before Prefect reads its settings

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed, State

from flows import notices
from flows.dvc_process import changes, lines_of
from flows.pipeline import OPTIONS, UNAVAILABLE, bring_all_up_to_date, code, prepare
from tasks.registry.upkeep.drift_result import Status
from tasks.runtime.artifacts import DOCUMENTS, DRIFT, DRIFT_PAGE, DRIFT_RESULT, RAW
from tasks.runtime.files import write_whole
from tasks.runtime.git import NOT_CODE, tracked_files

SETTLED = float(os.environ.get("PIPELINE_SETTLED_SECONDS", "30"))  # without a change in data/, before its files are taken for whole
FAILED = Path(".cache/new-data-failed.json")


@flow(name="on-new-data", **OPTIONS)
def on_new_data(revision: str = "") -> State[Any]:
    """Nothing where nothing changed; else the pipeline, with a look at drift as soon as the new records are clean.

    Args:
        revision: as of the flow ``pipeline``.
    """
    prepare()
    if revision and not (state := code(revision, return_state=True)).is_completed():
        return Failed(name=state.name, message=state.message)
    if not (changed := changes()):
        return Completed(name="Unchanged", message="neither the raw corpus nor the code changed")
    if (quiet := _seconds_of_quiet()) < SETTLED:
        return Completed(name="Unchanged", message=f"a file in data/ changed {quiet:.0f} s ago; the next look takes it")
    now = _fingerprint()
    if FAILED.exists() and (before := json.loads(FAILED.read_text(encoding="utf-8")))["fingerprint"] == now:
        return Completed(name="Unchanged", message=f"nothing changed since a run that failed: {before['message']}")
    get_run_logger().info(f"changed: {', '.join(changed)}")
    state = bring_all_up_to_date("register", after={"preprocess": drift})
    if not state.is_completed() and state.name != UNAVAILABLE:
        write_whole(FAILED, {"fingerprint": now, "message": state.message})
    return state


@task(task_run_name="drift", cache_policy=NO_CACHE)
def drift() -> State[Any]:
    """Compare new records with those that the champion knows; a warning is a notice, and a failure here stops nothing."""
    lines: list[str] = []
    try:
        for line in lines_of([sys.executable, "-m", "tasks.registry", "drift", str(DOCUMENTS), str(DRIFT)]):
            get_run_logger().info(line)
            lines.append(line)
    except subprocess.CalledProcessError:
        return Completed(name="Skipped", message="\n".join(lines[-3:]))
    result = json.loads((DRIFT / DRIFT_RESULT).read_text(encoding="utf-8"))
    message = result["message"]
    create_markdown_artifact(message, key="drift", description=f"New records against the training corpus; {DRIFT / DRIFT_PAGE}")
    if result["status"] == Status.DIFFERENT:
        get_run_logger().warning(message)
        notices.send("new data differs from the training corpus", message)
        return Completed(name="Warned", message=message)
    return Completed(message=message)


def _seconds_of_quiet() -> float:
    """Since the last change of a file in data/, or of its name."""
    times = [path.lstat().st_ctime for path in (RAW, *RAW.rglob("*"))] if RAW.exists() else []
    return time.time() - max(times, default=0.0)


def _fingerprint() -> str:
    """Of the raw files and of everything that git tracks, without what a run itself changes."""
    files = {Path(name) for name in tracked_files() if name not in NOT_CODE} | set(RAW.rglob("*"))
    stats = [(str(path), stat.st_size, stat.st_mtime_ns) for path in sorted(files) if (stat := _stat(path))]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    result = on_new_data(return_state=True)
    print(f"on-new-data: {result.name}: {result.message}")
    if not result.is_completed():
        sys.exit(1)
