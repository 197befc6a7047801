"""Work on many partitions at once: a pool of processes here, or the Dask cluster that ``DASK_SCHEDULER_ADDRESS`` names.

What is run is a function of a module with paths and small values as arguments; it writes files and returns little. Cluster workers
need this project's code in their working directory and the same paths. How many processes run here is said by ``WORKERS``, by
default one per core that may be used. Neither changes what comes out.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from model.system.openmp import available_cores
from tasks.runtime.processes import end_with_parent, interrupts_held
from tasks.runtime.progress import progress
from tasks.runtime.settings import setting

R = TypeVar("R")
ATTEMPTS = 4  # of work whose process was killed


def run_all(function: Callable[..., R], arguments: Sequence[tuple[Any, ...]], *, desc: str, here: bool = False) -> list[R]:
    """``function(*a)`` for each of ``arguments``, in their order; ``here``: in this process, for work that is not worth a pool.

    An exception in one of them is raised; work whose worker died is done again.
    """
    return list(in_order(function, arguments, desc=desc, here=here))


def in_order(function: Callable[..., R], arguments: Sequence[tuple[Any, ...]], *, desc: str, here: bool = False) -> Iterator[R]:
    """As ``run_all``, each result as soon as it and those before it are there, while work on the others goes on."""
    count = min(workers(), len(arguments))
    address = setting("DASK_SCHEDULER_ADDRESS")
    bar = progress(total=len(arguments), unit="parts", desc=desc)
    try:
        if address:
            results = _on_cluster(address, function, arguments)
        elif here or count < 2:
            results = (function(*a) for a in arguments)
        else:
            results = _in_processes(count, function, arguments)
        for result in results:
            bar.update(1)
            yield result
    finally:
        bar.close()


@contextmanager
def kept_processes() -> Iterator[None]:
    """Within it, the processes of one piece of work stay for the next, so that what they import is imported once.

    They keep the working directory and the environment that this process had when they began.
    """
    _kept.is_on = True
    try:
        yield
    finally:
        _kept.is_on = False
        if pool := _kept.pool:
            _kept.pool = None
            pool.shutdown()


def are_processes_kept() -> bool:
    """Whether there are processes that have begun, and wait for more work."""
    return _kept.pool is not None


def workers() -> int:
    """Processes to use on this machine; ``ValueError`` where ``WORKERS`` is not a positive number."""
    count = os.environ.get("WORKERS", str(available_cores()))
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(f"WORKERS is {count!r}; it says how many processes to use, a number from 1 on")
    return int(count)


@dataclass
class _Kept:
    is_on: bool = False
    pool: ProcessPoolExecutor | None = None


_kept = _Kept()


@contextmanager
def _pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes; where it is kept, one of as many as there may be, until something goes wrong with it."""
    # Not forked: the parent has threads, and a child that imports for itself is the same on every system.
    pool = _kept.pool or ProcessPoolExecutor(
        workers() if _kept.is_on else count, multiprocessing.get_context("spawn"), initializer=end_with_parent
    )
    _kept.pool = pool if _kept.is_on else None
    try:
        yield pool
    except BaseException:
        _kept.pool = None
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    if not _kept.is_on:
        pool.shutdown()


def _in_processes(count: int, function: Callable[..., R], arguments: Sequence[tuple[Any, ...]]) -> Iterator[R]:
    yielded, done = 0, dict[int, R]()
    for _ in range(ATTEMPTS):
        futures: dict[int, Future[R]] = {}
        resource_tracker.ensure_running()  # which, begun with the first worker, would let Ctrl-C through again
        try:
            with _pool(count) as pool:
                with interrupts_held():  # Ctrl-C is for us, who end the workers
                    futures = {i: pool.submit(function, *a) for i, a in enumerate(arguments) if i not in done}
                for index in range(yielded, len(arguments)):
                    yield done.pop(index) if index in done else futures[index].result()
                    yielded = index + 1
                return
        except BrokenProcessPool:
            done |= {i: f.result() for i, f in futures.items() if i >= yielded and f.done() and not f.cancelled() and not f.exception()}
            print("a worker process was killed; its work is done again", flush=True)
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C, whether it came here or to who takes the results
                for worker in multiprocessing.active_children():
                    worker.terminate()
            raise
    raise ValueError(f"worker processes were killed {ATTEMPTS} times, perhaps for lack of memory; try with WORKERS=1")


def _on_cluster(address: str, function: Callable[..., R], arguments: Iterable[tuple[Any, ...]]) -> Iterator[R]:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        # Impure: the files it writes count, not a result that the scheduler may remember from before.
        futures: list[Future[R]] = [client.submit(function, *a, pure=False) for a in arguments]
        for future in futures:
            yield future.result()
