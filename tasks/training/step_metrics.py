"""What a run measures while it goes on: a line per step in a file, which a process of its own tells the tracking store.

Training only appends to the file, so no store, however slow or dead, can hold it up. After a crash the steps that are made again
are not written again: they gave the same numbers, but
for rounding on a GPU. What stands there goes into the stage's record in the end.
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

Point = dict[str, float]  # with "step", and "time" in milliseconds since 1970
POINTS, RECORD = "points.jsonl", "record"
PATIENCE = 15.0  # seconds


class Points:
    """The points of the run whose state is in ``folder``, those of before a crash first."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / POINTS
        self._path.touch()
        self.all = read(folder)
        self._file = open(self._path, "r+", encoding="utf-8")  # noqa: SIM115 - for as long as the run
        self._file.truncate(self._path.read_bytes().rfind(b"\n") + 1)  # what a killed process wrote half
        self._file.seek(0, os.SEEK_END)

    def append(self, point: Point) -> None:
        """Add a step's measures; nothing for a step that is there already."""
        if self.all and self.all[-1]["step"] >= point["step"]:
            return
        self.all.append(point | {"time": float(round(time.time() * 1000))})
        self._file.write(json.dumps(self.all[-1]) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Have the disk hold them, before a state says that their steps are done."""
        sync(self._path)


def read(folder: Path) -> list[Point]:
    """The whole points so far, in order of steps."""
    try:
        return [json.loads(line) for line in (folder / POINTS).read_bytes().split(b"\n")[:-1]]
    except FileNotFoundError:
        return []


def record_of(folder: Path) -> str:
    """The id under which the tracking store knows this run, the same before and after a crash."""
    path = folder / RECORD
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            partial.write_text(str(uuid.uuid4()))
    return path.read_text()


@contextmanager
def followed(folder: Path, stage: str) -> Iterator[None]:
    """Have a process of its own tell the tracking store; its end is waited for a little, what it missed is in the record."""
    command = [sys.executable, "-m", "tasks.registry", "follow", stage, record_of(folder), str(folder)]
    with interrupts_held():  # Ctrl-C is for us; the follower ends when its pipe does, also when we die
        follower = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield
    finally:
        try:
            follower.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            follower.kill()
            follower.communicate()


def sync(path: Path) -> None:
    """Have the disk hold what was written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
