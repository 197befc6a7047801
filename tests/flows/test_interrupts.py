"""Ctrl-C, as a terminal sends it to a process group: a sentence of ours, no traceback, nothing half-written, and a later run goes on."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from helpers.pipeline import FLOW, start, wait_until_gone, wait_until_training
from helpers.project import PATIENCE, Project

from tasks.runtime.digests import dvc_digest

pytestmark = pytest.mark.system

# Python ends itself by the signal, which a shell calls 130 too, where that came within an exec(), as dataclasses do.
INTERRUPTED = (130, -signal.SIGINT)


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


def held(project: Project, sign: str) -> bool:
    """Whether a process of the project with such a command line has Ctrl-C held: its interpreter runs our code."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.cwd() == str(project.path) and sign in " ".join(process.cmdline()):
                blocked = re.search(r"SigBlk:\s+(\w+)", Path(f"/proc/{process.pid}/status").read_text())
                if blocked and int(blocked[1], 16) & 1 << (signal.SIGINT - 1):
                    return True
    return False


@pytest.mark.parametrize(
    ("stage", "sign"),
    [
        ("finetune", "tasks finetune"),  # it imports torch then
        pytest.param("preprocess", "tasks preprocess", marks=pytest.mark.campaign),
        pytest.param("shard", "tasks shard", marks=pytest.mark.campaign),
        pytest.param("base", "tasks base", marks=pytest.mark.campaign),
        pytest.param("validate", "tasks validate", marks=pytest.mark.campaign),
    ],
)
def test_a_stage_under_dvc(trained: Project, stage: str, sign: str) -> None:
    trained.environment["WORKERS"] = "2"
    process = start(trained, "dvc", "repro", "--force", "--single-item", stage)
    deadline = time.monotonic() + PATIENCE
    while not held(trained, sign):
        assert process.poll() is None and time.monotonic() < deadline, log_of(trained)
        time.sleep(0.01)
    output = interrupt(trained, process)
    assert "Traceback" not in output and f"{stage}: stopped by Ctrl-C" in output, output
    assert any(f"exited with {status}" in output for status in INTERRUPTED), output
    trained.run("dvc", "repro", stage)


def test_training_saves_and_a_later_run_goes_on(sharded: Project) -> None:
    sharded.set_params("finetune", steps=400, validate_every=400)
    process = start(sharded, "dvc", "repro", "finetune")
    wait_until_training(sharded)
    output = interrupt(sharded, process)
    assert "Traceback" not in output and "by a signal; the next run goes on from there" in output, output
    assert any(f"exited with {status}" in output for status in INTERRUPTED), output
    assert "going on after step" in sharded.run("dvc", "repro", "finetune").stdout


def test_a_command_of_the_registry_ends_with_one_line(copied: Project) -> None:
    process = start(copied, sys.executable, "-X", "importtime", "-m", "tasks.registry", "show")
    deadline = time.monotonic() + PATIENCE
    while "mlflow.entities" not in log_of(copied):  # in the middle of its imports
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) in INTERRUPTED
    lines = [line for line in log_of(copied).splitlines() if not line.startswith("import time:")]
    assert lines == ["show: stopped by Ctrl-C"]


def test_a_stage_by_hand_ends_with_the_status_of_an_interrupted_command(sharded: Project) -> None:
    command = [
        sys.executable,
        "-m",
        "tasks",
        "finetune",
        "artifacts/base",
        "artifacts/shards",
        *(f"by-hand/{n}" for n in "ab"),
        "by-hand/c.json",
    ]
    process = start(sharded, *command)
    while not held(sharded, "tasks finetune"):
        assert process.poll() is None, log_of(sharded)
        time.sleep(0.01)
    output = interrupt(sharded, process)
    assert process.returncode in INTERRUPTED and len(output.splitlines()) == 1, output
    assert not list((sharded.path / "by-hand").rglob("*")) if (sharded.path / "by-hand").exists() else True


@pytest.mark.parametrize("seconds", [pytest.param(0.5, marks=pytest.mark.campaign), None], ids=["importing", "training"])
def test_the_flow(sharded: Project, prefect_api: str, seconds: float | None) -> None:
    sharded.environment["PREFECT_API_URL"] = prefect_api
    sharded.set_params("finetune", steps=400, validate_every=400)
    before = dvc_digest(sharded.path / "artifacts" / "shards")
    process = start(sharded, *FLOW)
    wait_until_training(sharded) if seconds is None else time.sleep(seconds)
    output = interrupt(sharded, process)
    assert process.returncode in INTERRUPTED and output.splitlines()[-1].startswith("pipeline: stopped by Ctrl-C"), output
    assert "Traceback" not in output, output
    assert dvc_digest(sharded.path / "artifacts" / "shards") == before
    if seconds is None:
        assert "going on after step" in sharded.run("dvc", "repro", "finetune").stdout
