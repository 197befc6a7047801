"""The metrics of each step: a line per step in a file, which a process of its own forwards to the tracking store.

Training only appends to the file, so no store, however slow or dead, can hold it up. After a crash the steps that are repeated are
not written again: they give the same numbers, except for rounding on a GPU. The stage's record takes all of them in the end.
"""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.runtime.files import whole
from tasks.runtime.processes import interrupts_held

StepMetrics = dict[str, float]  # with "step", and "time" in milliseconds since 1970
FILE, RECORD = "step-metrics.jsonl", "record"
PATIENCE = 15.0  # seconds in which the forwarder may finish


class StepMetricsLog:
    """The steps of the run whose states are in ``folder``; ``all`` begins with those of before a crash."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        self._path.touch()
        self.all = read(folder)
        self._file = open(self._path, "r+", encoding="utf-8")  # noqa: SIM115 - for as long as the run
        self._file.truncate(self._path.read_bytes().rfind(b"\n") + 1)  # half a line of a killed process
        self._file.seek(0, os.SEEK_END)

    def append(self, metrics: StepMetrics) -> None:
        """Add a step; one that is there already is skipped."""
        if self.all and self.all[-1]["step"] >= metrics["step"]:
            return
        self.all.append(metrics | {"time": float(round(time.time() * 1000))})
        self._file.write(json.dumps(self.all[-1]) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Flush to the disk, before a state says that these steps are done."""
        sync(self._path)


def read(folder: Path) -> list[StepMetrics]:
    """The complete lines so far, in order of steps."""
    try:
        return [json.loads(line) for line in (folder / FILE).read_bytes().split(b"\n")[:-1]]
    except FileNotFoundError:
        return []


def record_of(folder: Path) -> str:
    """The id of this run in the tracking store, the same before and after a crash."""
    path = folder / RECORD
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            partial.write_text(str(uuid.uuid4()))
    return path.read_text()


@contextmanager
def forwarding(folder: Path, stage: str) -> Iterator[None]:
    """Forward the steps in a process of its own. It gets a few seconds to finish; the stage's record has what it missed."""
    command = [sys.executable, "-m", "tasks.registry", "follow", stage, record_of(folder), str(folder)]
    with interrupts_held():  # Ctrl-C is for this process; the forwarder ends when its pipe does, also when this process dies
        forwarder = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield
    finally:
        try:
            forwarder.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            forwarder.kill()
            forwarder.communicate()


def sync(path: Path) -> None:
    """Flush a file or directory to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
