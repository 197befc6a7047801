"""A stage's record: what ran, on what, with what result, written beside its outputs and handed to the tracker.

The record is a DVC output that no stage depends on, so DVC brings it back with the bytes that its run made, also where the run
happened in another clone. It holds digests and numbers, never text of records.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.digests import dvc_digest

PENDING = Path(".cache/records")  # records that the tracking store may not have yet
LIBRARIES = ("torch", "tiktoken", "numpy", "dvc", "great-expectations", "mlflow", "prefect")
# DVC rewrites these two by itself when data or results change; they say nothing about the code.
NOT_CODE = ("data.dvc", "dvc.lock")


@dataclass(frozen=True)
class Started:
    """A record under way: what is known before the stage works."""

    stage: str
    params: dict[str, Any]
    inputs: dict[str, str]
    code: dict[str, Any]
    time: float


def start(stage: str, params: dict[str, Any], inputs: dict[str, Path]) -> Started:
    digests = {str(path): dvc_digest(path) for path in inputs.values()}
    return Started(stage, params, digests, code_version(), time.time())


def finish(
    started: Started,
    path: Path,
    outs: dict[str, Path],
    metrics: dict[str, float],
    history: list[dict[str, float]],
    reports: list[str],
    *,
    known_as: str = "",
) -> None:
    """Write the record, then give it to the tracking store if that answers; a store that is down stops nothing."""
    content = {
        "record": known_as or str(uuid.uuid4()),
        "stage": started.stage,
        "command": " ".join(["python", "-m", f"tasks.{started.stage}", *sys.argv[1:]]),
        "started": datetime.fromtimestamp(started.time, UTC).isoformat(timespec="milliseconds"),
        "seconds": round(time.time() - started.time, 3),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "params": started.params,
        "inputs": started.inputs,
        "outputs": {str(out): dvc_digest(out) for out in outs.values()},
        "metrics": metrics,
        "history": history,
        "reports": reports,
        "code": started.code,
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES},
        "machine": {"processor": processor(), "cores": os.cpu_count()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    PENDING.mkdir(parents=True, exist_ok=True)
    write_whole(PENDING / f"{content['record']}.json", content)
    write_whole(path, content)
    from tasks import tracking  # imports mlflow, which costs seconds; and logging must not make a stage run again

    tracking.replay_pending()


def write_whole(path: Path, content: object) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.rename(path)


def code_version() -> dict[str, Any]:
    """The commit, and whether tracked files other than data.dvc and dvc.lock differ from it; empty outside git."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = [line[3:] for line in (_git("status", "--porcelain", "--untracked-files=no") or "").splitlines()]
    return {"commit": commit.strip(), "dirty": any(name.strip('"') not in NOT_CODE for name in changed)}


def is_linked_worktree() -> bool:
    paths = (_git("rev-parse", "--absolute-git-dir", "--git-common-dir") or "").splitlines()
    return len(paths) == 2 and Path(paths[0]).resolve() != Path(paths[1]).resolve()


def _git(*arguments: str) -> str | None:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    """The processor's name: other kinds of processor give other bits in training."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
