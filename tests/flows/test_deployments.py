"""The deployments of prefect.yaml on a real server with a real worker: what ends a run, what is left, how the next goes on."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from helpers.deployed import Deployed, deployed
from helpers.pipeline import lives, steps_told, wait_until_gone
from helpers.project import PATIENCE, ROOT, Project, copy_of

from tasks.runtime.digests import dvc_digest

pytestmark = pytest.mark.system

STEPS = 1200


@pytest.fixture(scope="module")
def interrupted(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose training takes a while, and whose earlier stages are done."""
    project = copy_of(made / "sharded", tmp_path_factory.mktemp("interrupted") / "project")
    project.set_params("finetune", steps=STEPS, validate_every=STEPS)
    project.run("dvc", "repro", "check_params")  # dvc.lock knows the params then
    project.run("git", "commit", "--all", "--quiet", "--message", "A long run")
    return project


def newest(project: Project) -> int:
    """The last step of which there is a whole state."""
    return max((int(p.name.split(".")[0]) for p in (project.path / ".cache" / "train").glob("*/[0-9]*[0-9]")), default=0)


def begin(there: Deployed) -> str:
    """Start a run and wait until it trains, beyond what was there before."""
    there.pause("on-new-data/on-new-data")  # whose schedule, each quarter of an hour, would train first
    before = newest(there.project)
    run = there.start("pipeline/pipeline")
    deadline = time.monotonic() + PATIENCE
    while newest(there.project) <= before:
        assert time.monotonic() < deadline, (there.state(run), there.log.read_text()[-5000:])
        time.sleep(0.05)
    return run


def test_a_run_that_is_started_by_prefects_command_goes_as_far_as_it_says(interrupted: Project, prefect_api: str) -> None:
    with deployed(interrupted, prefect_api) as there:
        command = "prefect deployment run pipeline/pipeline --param through=shard --watch"
        output = interrupted.run("env", f"PREFECT_API_URL={there.api}", *command.split()).stdout
        run = re.findall(r"UUID: (\S+)", output)[0]
        assert there.wait(run)["type"] == "COMPLETED"
        assert set(there.tasks(run)) == {"params", "data", "base", "preprocess", "augment", "shard"}


def test_what_make_deploy_started_is_started_again_and_found_by_prefects_command(interrupted: Project) -> None:
    command = "prefect deployment run pipeline/pipeline --param through=shard --watch"
    with deployed(interrupted, "") as there:
        for name in ("worker", "server"):
            victim = there.part(name)
            assert victim
            victim.kill()
            deadline = time.monotonic() + PATIENCE
            while (part := there.part(name, missing_ok=True)) is None or part == victim:
                assert there.process.poll() is None and time.monotonic() < deadline, there.log.read_text()[-5000:]
                time.sleep(0.2)
            assert re.search(rf"the (prefect )?{name} ended \(SIGKILL\).*; it is started again in", there.log.read_text())
        there.wait_until_healthy()
        # Another account of the machine reaches the address, and not the key.
        assert (interrupted.path / ".env").stat().st_mode & 0o777 == 0o600
        for asked in (httpx.get, httpx.post):
            assert asked(f"{there.api}/flows/filter", timeout=60).status_code == httpx.codes.UNAUTHORIZED
        run = re.findall(r"UUID: (\S+)", interrupted.run(*command.split()).stdout)[0]
        assert there.wait(run)["type"] == "COMPLETED"
    assert not (interrupted.path / ".env").exists()
    assert interrupted.run("git", "status", "--porcelain").stdout == ""


LOST = """
import time
from flows import watch
from prefect import flow
from prefect.flow_engine import FlowRunTimeoutError

@flow(timeout_seconds=LIMIT, on_failure=[watch.failed])
def of_a_test():
    if LIMIT < 60:
        time.sleep(600)  # until its time is up
    raise FlowRunTimeoutError  # as Prefect's client does when the run's place is lost

state = of_a_test(return_state=True)
print("run", state.state_details.flow_run_id)
"""


@pytest.mark.parametrize(("limit", "type_", "words"), [("3600", "CRASHED", "held its place no longer"), ("2", "FAILED", "exceeded")])
def test_a_run_that_had_time_left_did_not_time_out(prefect_api: str, limit: str, type_: str, words: str) -> None:
    output = subprocess.run(
        [sys.executable, "-c", LOST.replace("LIMIT", limit)],
        cwd=ROOT,
        env=os.environ | {"PREFECT_API_URL": prefect_api},
        capture_output=True,
        text=True,
        check=False,
    )
    run = re.findall(r"^run (\S+)$", output.stdout, flags=re.M)[0]
    state = httpx.get(f"{prefect_api}/flow_runs/{run}", timeout=60).json()["state"]
    assert state["type"] == type_ and words in state["message"], state


class TestInterruptions:
    """One after the other on one project: each leaves the training unfinished, and the next goes on with it."""

    def test_a_run_that_is_cancelled_ends_with_all_its_processes(self, interrupted: Project, prefect_api: str) -> None:
        with deployed(interrupted, prefect_api) as there:
            run = begin(there)
            there.cancel(run)
            assert there.wait(run)["type"] == "CANCELLED"
            wait_until_idle(there)

    @pytest.mark.campaign
    def test_a_run_that_takes_too_long_ends_with_all_its_processes(self, interrupted: Project, prefect_api: str) -> None:
        with deployed(interrupted, prefect_api, PIPELINE_TIMEOUT_HOURS=str(15 / 3600)) as there:
            state = there.wait(there.start("pipeline/pipeline"))
            assert (state["type"], state["name"]) == ("FAILED", "TimedOut")
            wait_until_idle(there)

    @pytest.mark.campaign
    def test_a_run_whose_worker_is_killed_is_crashed_at_once(self, interrupted: Project, prefect_api: str) -> None:
        with deployed(interrupted, prefect_api) as there:
            run = begin(there)
            there.worker().kill()
            assert there.wait(run)["type"] == "CRASHED"
            assert there.wait(there.start("pipeline/pipeline", through="shard"))["type"] == "COMPLETED"
        wait_until_gone(interrupted)

    @pytest.mark.campaign
    def test_a_run_whose_machine_is_gone_is_crashed_within_minutes(self, interrupted: Project, prefect_api: str) -> None:
        with deployed(interrupted, prefect_api, PIPELINE_LONGEST_SILENCE="60") as there:
            run = begin(there)
            victims = [there.worker(), *there.worker().children(recursive=True)]
            for victim in victims:  # so that none learns of another's end
                victim.suspend()
            os.kill(there.process.pid, signal.SIGKILL)
            for victim in victims:
                victim.kill()
            assert there.state(run)["type"] == "RUNNING"
            state = there.wait(run)
            assert state["type"] == "CRASHED" and "nothing was heard of it" in state["message"]
        wait_until_gone(interrupted)

    def test_a_run_that_was_stopped_and_goes_on_ends_with_the_true_reason(self, interrupted: Project, prefect_api: str) -> None:
        with deployed(interrupted, prefect_api, PIPELINE_LONGEST_SILENCE="45") as there:
            run = begin(there)
            stopped = processes_of_runs(there)
            for process in stopped:
                process.suspend()
            assert "nothing was heard of it" in there.wait(run)["message"]
            for process in stopped:
                process.resume()
            wait_until_idle(there)
            state = there.state(run)
            assert state["type"] == "CRASHED"
            assert re.search(r"was silent for \d+ s and was called crashed; it stopped then", state["message"]), state
            assert any("was called crashed; it stopped then" in line for line in there.logs(run))
            deadline = time.monotonic() + PATIENCE
            while left := [process for process in stopped if lives(process)]:  # the last of them ends a moment after the others
                assert time.monotonic() < deadline, left
                time.sleep(0.2)

    @pytest.mark.campaign
    def test_a_run_that_is_suspended_stops_and_goes_on_when_it_is_resumed(self, interrupted: Project, prefect_api: str) -> None:
        with deployed(interrupted, prefect_api, PIPELINE_LONGEST_SILENCE="45") as there:
            run = begin(there)
            there.suspend(run)
            wait_until_idle(there)
            time.sleep(60)  # nothing is heard of it, and it is not called crashed
            state = there.state(run)
            assert (state["type"], state["name"]) == ("PAUSED", "Suspended") and "it stopped then" in state["message"]
            before = newest(interrupted)
            there.resume(run)
            deadline = time.monotonic() + PATIENCE
            while newest(interrupted) <= before:
                assert time.monotonic() < deadline, (there.state(run), there.log.read_text()[-5000:])
                time.sleep(0.05)
            assert there.state(run)["type"] == "RUNNING"
            there.cancel(run)
            assert there.wait(run)["type"] == "CANCELLED"
            wait_until_idle(there)

    @pytest.mark.campaign  # that one waits for the other is seen in test_outages, the same bits after a stop in test_kills
    def test_of_two_runs_the_second_waits_and_the_training_ends_with_the_same_bits(self, interrupted: Project, prefect_api: str) -> None:
        with deployed(interrupted, prefect_api) as there:
            first = begin(there)
            second = there.start("pipeline/pipeline")
            there.wait_until(second, "SCHEDULED", "PENDING")
            time.sleep(5)
            assert there.state(first)["type"] == "RUNNING" and there.state(second)["type"] in ("SCHEDULED", "PENDING")
            assert there.wait(first)["type"] == there.wait(second)["type"] == "COMPLETED"
            assert any("going on after step" in line for line in there.logs(first))
            assert there.tasks(second)["finetune"]["state"]["name"] == "Cached"
        assert steps_told(interrupted) == [list(range(1, STEPS + 1))]
        survived = dvc_digest(interrupted.path / "artifacts" / "model")
        interrupted.run("dvc", "repro", "--force", "--single-item", "finetune")
        assert dvc_digest(interrupted.path / "artifacts" / "model") == survived


def processes_of_runs(there: Deployed) -> list[psutil.Process]:
    """What the worker started, the stages among it."""
    return there.worker().children(recursive=True)


def wait_until_idle(there: Deployed) -> None:
    """No process of a run is left under the worker."""
    deadline = time.monotonic() + PATIENCE
    while left := there.worker().children(recursive=True):
        assert time.monotonic() < deadline, [p.cmdline() for p in left]
        time.sleep(0.2)
