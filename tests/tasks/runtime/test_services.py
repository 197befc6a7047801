"""What is kept running is started again when it dies, ends in the end, and ``.env`` names a server only as long as there is one."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from helpers.pipeline import lives
from helpers.project import ROOT

SECONDS = 60.0
# A service that says its number, and is no more than that; how fast it is started again is not what is tested.
PROGRAM = """
import sys
from tasks.runtime import services
services.SETTLED_SECONDS, services.MAX_SECONDS, services.MAX_ENDS = 20, 0.2, 3
with services.kept_running() as found:
    for name, command in (("one", sys.argv[1]), ("two", "sleep 600 & exec sleep 600")):
        service = services.Service(name, ["sh", "-c", command])
        service.start()
        found.append(service)
    print("up", flush=True)
"""


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def start(command: str) -> "subprocess.Popen[str]":
        with open(tmp_path / "log", "w", encoding="utf-8") as log:
            process = subprocess.Popen([sys.executable, "-c", PROGRAM, command], cwd=ROOT, stdout=log, stderr=log, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def sleepers(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    services_started = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.cmdline()[:1] == ["sleep"]:
                services_started.append(child)
    return services_started


@pytest.mark.slow
def test_what_dies_is_started_again_and_the_rest_stays(keeper: Callable[[str], "subprocess.Popen[str]"], tmp_path: Path) -> None:
    process = keeper("exec sleep 600")
    until(lambda: len(sleepers(process)) == 3)
    before = sleepers(process)
    victim = next(p for p in before if p.ppid() == process.pid and not p.children() and not [q for q in before if q.ppid() == p.pid])
    time.sleep(1)
    victim.kill()
    until(lambda: "one ended (SIGKILL); it is started again" in (tmp_path / "log").read_text())
    until(lambda: len(sleepers(process)) == 3)
    assert {p.pid for p in before} - {p.pid for p in sleepers(process)} == {victim.pid}


@pytest.mark.slow
def test_what_a_dead_server_left_behind_is_ended_before_it_is_started_again(keeper: Callable[[str], "subprocess.Popen[str]"]) -> None:
    process = keeper("sleep 600 & exec sleep 600")
    until(lambda: len(sleepers(process)) == 4)
    before = sleepers(process)
    leader, left = next((p, q) for p in before for q in before if q.ppid() == p.pid)
    leader.kill()
    until(lambda: not lives(left))
    until(lambda: len(sleepers(process)) == 4)


@pytest.mark.slow
def test_what_dies_again_and_again_ends_all_with_a_reason(keeper: Callable[[str], "subprocess.Popen[str]"], tmp_path: Path) -> None:
    process = keeper("exit 3")
    until(lambda: len(sleepers(process)) >= 2 or process.poll() is not None)
    others = sleepers(process) if process.poll() is None else []
    assert process.wait(SECONDS) == 1
    assert "one ended 4 times, each time within" in (tmp_path / "log").read_text()
    assert "(status 3)" in (tmp_path / "log").read_text()
    until(lambda: not [p for p in others if lives(p)])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_all_end_with_who_keeps_them(keeper: Callable[[str], "subprocess.Popen[str]"], number: int, status: int, tmp_path: Path) -> None:
    process = keeper("exec sleep 600")
    until(lambda: "up" in (tmp_path / "log").read_text() and len(sleepers(process)) == 3)
    kept = [p for p in sleepers(process) if p.ppid() == process.pid]
    process.send_signal(number)
    assert process.wait(SECONDS) == status
    until(lambda: not [p for p in kept if lives(p)])


HOLDER = """
import sys, time
from flows import prefect_address
with prefect_address.only_here():
    prefect_address.make_key()
    prefect_address.point_here("http://127.0.0.1:9/api")
    print("here", flush=True)
    time.sleep(600)
"""
LOOK = "from flows import prefect_address; print('names', prefect_address.address())"


class TestAddress:
    @pytest.fixture
    def directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.delenv("PREFECT_API_URL", raising=False)
        return tmp_path

    def hold(self, directory: Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=directory, stdout=subprocess.PIPE, text=True)
        assert process.stdout and process.stdout.readline() == "here\n"
        return process

    def look(self, directory: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-c", LOOK], cwd=directory, capture_output=True, text=True, check=True)

    @pytest.mark.slow
    def test_it_stands_there_as_long_as_the_server_runs(self, directory: Path) -> None:
        with self.hold(directory) as process:
            assert self.look(directory).stdout == "names http://127.0.0.1:9/api\n"
            asked = "from prefect.settings import PREFECT_API_AUTH_STRING as KEY, PREFECT_API_URL as URL; print(URL.value(), KEY.value())"
            output = subprocess.run([sys.executable, "-c", asked], cwd=directory, capture_output=True, text=True, check=True)
            address, key = output.stdout.split()
            assert address == "http://127.0.0.1:9/api" and key.startswith("pipeline:") and len(key) > 40
            process.send_signal(signal.SIGINT)
        assert not (directory / ".env").exists()

    def test_who_was_killed_leaves_nothing_that_is_believed(self, directory: Path) -> None:
        (directory / ".env").write_text("OTHER=1\n")
        with self.hold(directory) as process:
            process.kill()
        assert "127.0.0.1:9" in (directory / ".env").read_text()
        output = self.look(directory)
        assert output.stdout == "names \n" and "was killed; that line was removed" in output.stderr
        assert (directory / ".env").read_text() == "OTHER=1\n"
        assert not self.look(directory).stderr

    def test_a_line_of_somebody_else_is_taken_and_left(self, directory: Path) -> None:
        (directory / ".env").write_text("PREFECT_API_URL=http://127.0.0.1:8/api\n")
        assert self.look(directory).stdout == "names http://127.0.0.1:8/api\n"
        assert (directory / ".env").read_text() == "PREFECT_API_URL=http://127.0.0.1:8/api\n"

    @pytest.mark.slow
    def test_one_at_a_time(self, directory: Path) -> None:
        with self.hold(directory) as process:
            second = subprocess.run([sys.executable, "-c", HOLDER], cwd=directory, capture_output=True, text=True, check=False)
            assert second.returncode == 1 and "it runs in this directory already" in second.stderr
            process.kill()
