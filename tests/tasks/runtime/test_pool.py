"""Work on many partitions: in processes and on a Dask cluster, with workers killed in the middle."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers.pool_work import die_once, fail, processes, square
from helpers.project import ROOT, free_port

from tasks.runtime.pool import are_processes_kept, kept_processes, run_all


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "3"])
def test_results_come_in_the_order_of_the_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    monkeypatch.setenv("WORKERS", workers)
    assert run_all(square, [(n, tmp_path) for n in range(10)], desc="squares") == [n * n for n in range(10)]
    assert len(processes(tmp_path)) == int(workers)


@pytest.mark.slow
def test_the_work_of_a_killed_process_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "2")
    assert run_all(die_once, [(n, tmp_path) for n in range(8)], desc="squares") == [n * n for n in range(8)]
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_an_error_in_a_process_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "2")
    with pytest.raises(ValueError, match="part 0 is bad"):
        run_all(fail, [(0,), (0,)], desc="failing")


@pytest.mark.slow
def test_processes_are_kept_for_the_next_work_and_then_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "2")
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    with kept_processes():
        assert not are_processes_kept()
        run_all(square, [(n, tmp_path / "one") for n in range(40)], desc="squares")
        first = processes(tmp_path / "one")
        assert are_processes_kept() and len(first) == 2
        assert run_all(square, [(n, tmp_path / "two") for n in range(40)], desc="squares") == [n * n for n in range(40)]
        assert processes(tmp_path / "two") == first
        os.kill(int(min(first)), signal.SIGKILL)
        assert run_all(square, [(n, tmp_path / "three") for n in range(10)], desc="squares") == [n * n for n in range(10)]
        with pytest.raises(ValueError, match="part 0 is bad"):
            run_all(fail, [(0,), (0,)], desc="failing")
        assert run_all(square, [(n, tmp_path / "three") for n in range(10)], desc="squares") == [n * n for n in range(10)]
    assert not are_processes_kept() and not multiprocessing.active_children()


@pytest.mark.parametrize("value", ["0", "many", "-1"])
def test_a_number_of_workers_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WORKERS", value)
    with pytest.raises(ValueError, match="WORKERS is"):
        run_all(fail, [(0,), (1,)], desc="failing")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Dask scheduler with two workers on loopback: its address, and the process of one worker."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    options = ["--no-dashboard"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "DASK_DISTRIBUTED__DIAGNOSTICS__NVML": "false"}

    def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments]
        with open(tmp_path / "dask.log", "ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    started = [start("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), *options)]
    started += [start("dask_worker", address, "--nthreads", "1", "--local-directory", str(tmp_path / "dask"), *options) for _ in range(2)]
    try:
        yield address, started[1]
    finally:
        for process in started:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                child.kill()
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_cluster_does_the_same_and_loses_nothing_with_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: tuple[str, subprocess.Popen[bytes]]
) -> None:
    address, worker = cluster
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    (tmp_path / "marks").mkdir()
    killer = subprocess.Popen(
        [sys.executable, "-c", "import os,sys,time\nwhile len(os.listdir(sys.argv[1])) < 30: time.sleep(0.02)\n"
         "import psutil\nfor p in psutil.Process(int(sys.argv[2])).children(recursive=True): p.kill()\nos.kill(int(sys.argv[2]), 9)",
         str(tmp_path / "marks"), str(worker.pid)]
    )  # fmt: skip
    assert run_all(square, [(n, tmp_path / "marks") for n in range(120)], desc="squares") == [n * n for n in range(120)]
    assert killer.wait(120) == 0 and worker.wait(120) is not None
    assert len(processes(tmp_path / "marks")) == 2


def interrupts_blocked(number: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()) and number >= 0


@pytest.mark.slow
def test_ctrl_c_is_for_who_has_the_pool_and_not_for_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "2")
    assert run_all(interrupts_blocked, [(n,) for n in range(3)], desc="trying") == [True] * 3
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
