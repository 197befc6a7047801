"""Processes that end with the one that started them: ``python -m tasks.runtime COMMAND …`` runs a command so.

DVC goes on when what started it is killed, and so does a stage when DVC is; nobody would look after either. Who is asked to leave may
save first.
"""

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

INTERRUPTED = 128 + signal.SIGINT  # what a shell calls the status of who was ended by Ctrl-C
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process, and to what it executes, when its parent ends, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def forced() -> bool:
    """Whether ``dvc repro --force`` runs this stage: of a run that was cut off, DVC then asks for nothing to be kept, and has no
    other way to tell."""
    try:
        command = psutil.Process().parent().cmdline()  # type: ignore[union-attr]
    except (psutil.Error, AttributeError):
        return False
    return any(Path(word).name == "dvc" for word in command) and bool({"-f", "--force"} & set(command))


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of this block, or of the blocks that this one is in. Processes that are started in it never see one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take_interrupts() -> None:
    """From here on, one that came while they were held included: ``KeyboardInterrupt``."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


_asked: list[int] = []


def asked_to_stop() -> int:
    """The signal that ``told_to_stop`` was told by in this process, 0 for none."""
    return _asked[0] if _asked else 0


@contextmanager
def told_to_stop() -> Iterator[list[int]]:
    """A list that gets the first SIGTERM or SIGINT; a second one ends the process as it would without us."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def remember(number: int, _: object) -> None:
        came.append(number)
        _asked.append(number)
        for handled, handler in before.items():
            signal.signal(handled, handler)
        print("asked to leave; saving what is done first", flush=True)

    for number in before:
        signal.signal(number, remember)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tune_malloc() -> None:
    """Let glibc keep freed memory instead of giving it back after every operation: a quarter more tokens/s on CPU."""
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)
    libc.mallopt(top_pad, 1 << 28)
