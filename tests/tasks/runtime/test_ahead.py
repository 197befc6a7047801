"""A process that imports ahead of time, and runs functions of its module."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tasks.runtime.ahead import started_ahead

ROOT = Path(__file__).resolve().parents[3]


def test_functions_run_in_the_other_process_and_their_results_come_back() -> None:
    with started_ahead("os") as call:
        other = call("getpid")
        assert other != os.getpid()
        assert call("getpid") == other
        assert call("strerror", 2) == os.strerror(2)
    assert not psutil.pid_exists(other)


def test_an_error_of_the_function_is_raised_here_and_the_process_goes_on() -> None:
    with started_ahead("json") as call:
        with pytest.raises(ValueError, match="Expecting value"):
            call("loads", "no json")
        assert call("loads", "[1]") == [1]


def test_a_process_that_dies_is_named() -> None:
    with started_ahead("os") as call, pytest.raises(OSError, match="that was to run os ended with status 7"):
        call("_exit", 7)


def test_a_module_that_does_not_import_is_an_error_of_the_first_call() -> None:
    with started_ahead("no_such_module") as call, pytest.raises(OSError, match="that was to run no_such_module ended with status 1"):
        call("anything")


def test_it_is_not_waited_for_where_nothing_was_called() -> None:
    began = time.monotonic()
    with started_ahead("helpers_that_import_for_long"):
        pass
    assert time.monotonic() - began < 5
    assert not [args for args in _commands_of_children() if "helpers_that_import_for_long" in args]


def _commands_of_children() -> Iterator[list[str]]:
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # also where it ended and other tests have not asked for its status yet
            yield child.cmdline()


def test_it_ends_with_the_process_that_started_it() -> None:
    code = "from tasks.runtime.ahead import started_ahead\nwith started_ahead('os') as call:\n print(call('getpid'), flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    other = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.communicate()
    other.wait(timeout=60)


@pytest.mark.parametrize(
    "module", ["tasks.preprocess", "tasks.augment", "tasks.shard", "tasks.stage", "tasks.register", "tasks.registry.unchanged"]
)
def test_stages_import_nothing_that_costs_seconds_before_they_need_it(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = set(subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split())
    assert not loaded & {"mlflow", "great_expectations", "torch", "transformers", "presidio_analyzer", "pandas", "scipy", "sqlalchemy"}
