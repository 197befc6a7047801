"""A stage's record: what ran, on what, with what result, written beside its outputs and handed to the tracker.

The record is a DVC output that no stage depends on, so DVC brings it back with the bytes that its run made, also where the run
happened in another clone. It holds digests and numbers, never text of records.
"""

import os
import platform
import resource
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.runtime.digests import dvc_digest
from tasks.runtime.files import write_whole
from tasks.runtime.git import code_version

PENDING = Path(".cache/records")  # records that the tracking store may not have yet
LIBRARIES = ("torch", "tiktoken", "numpy", "dvc", "great-expectations", "mlflow", "prefect")


@dataclass(frozen=True)
class Started:
    """A record under way: what is known before the stage works."""

    stage: str
    params: dict[str, Any]
    inputs: dict[str, str]
    code: dict[str, Any]
    time: float


def start(stage: str, params: dict[str, Any], inputs: dict[str, Path]) -> Started:
    """Digest the inputs (paths by parameter), and note code and time, before the stage works."""
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
    """Write the record, and a copy of it among those that the tracking store has not got yet."""
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


def processor() -> str:
    """The processor's name: other kinds of processor give other bits in training."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
