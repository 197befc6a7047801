"""The deployments of prefect.yaml on a real server with a real worker: what ends a run, what is left, how the next goes on."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from conftest import PATIENCE, Project, copy_of
from deployed import Deployed, deployed
from test_pipeline import steps_told, wait_until_gone

from tasks.digests import dvc_digest

STEPS = 1200


@pytest.fixture(scope="module")
def interrupted(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose training takes a while, and whose earlier stages are done."""
    project = copy_of(made / "sharded", tmp_path_factory.mktemp("interrupted") / "project")
    project.set_params("finetune", steps=STEPS, validate_every=STEPS)
    project.run("git", "commit", "--all", "--quiet", "--message", "A long run")
    return project


def newest(project: Project) -> int:
    """The last step of which there is a whole state."""
    return max((int(p.name.split(".")[0]) for p in (project.path / ".cache" / "train").glob("*/[0-9]*[0-9]")), default=0)


def begin(there: Deployed) -> str:
    """Start a run and wait until it trains, beyond what was there before."""
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
        told = interrupted.run("env", f"PREFECT_API_URL={there.api}", *command.split()).stdout
        run = re.findall(r"UUID: (\S+)", told)[0]
        assert there.wait(run)["type"] == "COMPLETED"
        assert set(there.tasks(run)) == {"params", "data", "base", "preprocess", "augment", "shard"}


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
        wait_until_gone(interrupted)

    @pytest.mark.campaign
    def test_a_run_whose_machine_is_gone_is_crashed_within_minutes(self, interrupted: Project, prefect_api: str) -> None:
        with deployed(interrupted, prefect_api, PIPELINE_LONGEST_SILENCE="60") as there:
            run = begin(there)
            victims = [there.worker(), *there.worker().children(recursive=True)]
            os.kill(there.process.pid, signal.SIGKILL)
            for victim in victims:
                victim.kill()
            assert there.state(run)["type"] == "RUNNING"
            state = there.wait(run)
            assert state["type"] == "CRASHED" and "nothing was heard of it" in state["message"]
        wait_until_gone(interrupted)

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


def wait_until_idle(there: Deployed) -> None:
    """No process of a run is left under the worker."""
    deadline = time.monotonic() + PATIENCE
    while left := there.worker().children(recursive=True):
        assert time.monotonic() < deadline, [p.cmdline() for p in left]
        time.sleep(0.2)
