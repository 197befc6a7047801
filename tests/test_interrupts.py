"""Ctrl-C, as a terminal sends it to a process group: a sentence of ours, no traceback, nothing half-written, and a later run goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import PATIENCE, Project
from test_pipeline import FLOW, start, wait_until_gone, wait_until_training

from tasks.digests import dvc_digest


def log_of(project: Project) -> str:
    return (project.path.parent / "log").read_text()


def interrupt(project: Project, process: "subprocess.Popen[bytes]") -> str:
    """Ctrl-C; what was printed up to the end of all processes."""
    os.killpg(process.pid, signal.SIGINT)
    process.wait(PATIENCE)
    wait_until_gone(project)
    assert process.returncode, log_of(project)
    assert not list((project.path / "artifacts").rglob("*.partial"))
    return log_of(project)


def wait_for_line(project: Project, words: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while words not in log_of(project):
        assert time.monotonic() < deadline, log_of(project)
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("stage", "seconds"),
    [
        ("finetune", 0.4),  # it imports torch then
        pytest.param("preprocess", 0.5, marks=pytest.mark.campaign),
        ("preprocess", 2.0),  # processes of its own work for it
        pytest.param("shard", 3.0, marks=pytest.mark.campaign),
        pytest.param("validate", 5.0, marks=pytest.mark.campaign),
    ],
)
def test_a_stage_under_dvc(trained: Project, stage: str, seconds: float) -> None:
    trained.environment["WORKERS"] = "2"
    process = start(trained, "dvc", "repro", "--force", "--single-item", stage)
    wait_for_line(trained, f"exec python -m tasks.run {stage}")
    time.sleep(seconds)
    output = interrupt(trained, process)
    assert "Traceback" not in output and f"{stage}: stopped by Ctrl-C" in output, output
    assert "exited with 130" in output
    assert trained.run("dvc", "repro", stage).returncode == 0


def test_training_saves_and_a_later_run_goes_on(sharded: Project) -> None:
    sharded.set_params("finetune", steps=400, validate_every=400)
    process = start(sharded, "dvc", "repro", "finetune")
    wait_until_training(sharded)
    output = interrupt(sharded, process)
    assert "Traceback" not in output and "by a signal; the next run goes on from there" in output, output
    assert "exited with 130" in output
    assert "going on after step" in sharded.run("dvc", "repro", "finetune").stdout


def test_a_stage_by_hand_ends_with_the_status_of_an_interrupted_command(sharded: Project) -> None:
    command = [
        sys.executable,
        "-m",
        "tasks.run",
        "finetune",
        "artifacts/base",
        "artifacts/shards",
        *(f"by-hand/{n}" for n in "ab"),
        "by-hand/c.json",
    ]
    process = start(sharded, *command)
    time.sleep(0.5)
    output = interrupt(sharded, process)
    assert process.returncode == 130 and len(output.splitlines()) == 1, output
    assert not list((sharded.path / "by-hand").rglob("*")) if (sharded.path / "by-hand").exists() else True


@pytest.mark.parametrize("seconds", [pytest.param(0.5, marks=pytest.mark.campaign), None], ids=["importing", "training"])
def test_the_flow(sharded: Project, prefect_api: str, seconds: float | None) -> None:
    sharded.environment["PREFECT_API_URL"] = prefect_api
    sharded.set_params("finetune", steps=400, validate_every=400)
    before = dvc_digest(sharded.path / "artifacts" / "shards")
    process = start(sharded, *FLOW)
    wait_until_training(sharded) if seconds is None else time.sleep(seconds)
    output = interrupt(sharded, process)
    assert process.returncode == 130 and output.splitlines()[-1].startswith("pipeline: stopped by Ctrl-C"), output
    assert "Traceback" not in output, output
    assert dvc_digest(sharded.path / "artifacts" / "shards") == before
    if seconds is None:
        assert "going on after step" in sharded.run("dvc", "repro", "finetune").stdout
