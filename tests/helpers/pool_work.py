"""Work that processes of a pool do, also on a Dask worker, which imports this module."""

import os
import signal
import time
from pathlib import Path


def square(number: int, folder: Path) -> int:
    """Leaves a mark, so that a test can see when the work is under way."""
    time.sleep(0.05)
    (folder / f"{number}-{os.getpid()}").touch()
    return number * number


def processes(folder: Path) -> set[str]:
    return {path.name.split("-")[1] for path in folder.iterdir()}


def die_once(number: int, folder: Path) -> int:
    if number == 3 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number, folder)


def fail(number: int) -> int:
    raise ValueError(f"part {number} is bad")
