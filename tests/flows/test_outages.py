"""What a run needs is missing for a while: the tracking server, the repository, room on the disk. Nothing is lost, and a run goes on."""

import errno
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from helpers.pipeline import FLOW, start, wait_until_training
from helpers.project import PATIENCE, Project, copy_of, free_port, wait_for
from mlflow import MlflowClient
from ruamel.yaml import YAML

from tasks.params import STAGES as ALL
from tasks.runtime.disk import told_when_full

STEPS = 400
STAGES = ("preprocess", "augment", "shard", "finetune", "validate", "register")


def mlflow_server(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(folder / "mlflow.log", "ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    wait_for(f"http://127.0.0.1:{port}/health", server)
    return server


def kill(server: "subprocess.Popen[bytes]") -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def wait_for_line(project: Project, words: str, *, seconds: float = PATIENCE) -> None:
    log, deadline = project.path.parent / "log", time.monotonic() + seconds
    while words not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.mark.system
def test_a_tracking_server_that_is_down_at_the_start_in_the_middle_and_at_the_end_costs_no_work(trained: Project, prefect_api: str) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    trained.environment |= {"PREFECT_API_URL": prefect_api, "MLFLOW_TRACKING_URI": address, "PIPELINE_RETRY_SECONDS": "1,2,60"}
    trained.set_params("finetune", steps=STEPS, validate_every=STEPS)
    folder = trained.path.parent / "server"
    folder.mkdir()
    run = start(trained, *FLOW)  # nobody answers yet
    wait_until_training(trained)
    server = mlflow_server(folder, port)
    kill(server)
    wait_for_line(trained, f"the MLflow server at 127.0.0.1:{port} does not answer")
    wait_for_line(trained, "Retry 3/3")
    server = mlflow_server(folder, port)
    try:
        assert run.wait(PATIENCE) == 0, (trained.path.parent / "log").read_text()
        client = MlflowClient(tracking_uri=address)
        assert client.get_model_version("medical-llm", "1").tags["checkpoint"]
        (experiment,) = (e for e in client.search_experiments() if e.name == "medical-llm")
        (tuned,) = client.search_runs([experiment.experiment_id], f"tags.stage = 'finetune' and params.steps = '{STEPS}'")
        assert sorted(m.step for m in client.get_metric_history(tuned.info.run_id, "loss")) == list(range(1, STEPS + 1))
        # A run's page in Prefect leads to MLflow's pages.
        output = httpx.post(f"{prefect_api}/artifacts/filter", json={}, timeout=240).json()
        linked = {
            a["key"]: artifacts_found[0] for a in output if (artifacts_found := re.findall(rf"{address}/#/([^)\]\s]+)", str(a["data"])))
        }
        mode = "?workflowType=machine_learning"
        assert linked["mlflow-version"] == f"models/medical-llm/versions/1{mode}"
        assert linked["mlflow-run-finetune"] == f"experiments/{experiment.experiment_id}/runs/{tuned.info.run_id}{mode}"
        assert {f"mlflow-run-{stage}" for stage in STAGES} <= set(linked)
    finally:
        kill(server)


@pytest.mark.system
def test_a_flow_waits_for_a_dvc_process_that_lives(trained: Project, prefect_api: str) -> None:
    trained.set_params("finetune", steps=STEPS, validate_every=STEPS)
    other = start(trained, "dvc", "repro", "finetune")
    wait_until_training(trained)
    trained.environment["PREFECT_API_URL"] = prefect_api
    output = trained.run(*FLOW).stdout
    assert other.wait(PATIENCE) == 0
    assert "another DVC process works on this repository; waiting" in output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 30 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def fill(disk: Path, *, leaving: int) -> Path:
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    room = os.statvfs(disk)
    with open(filler, "wb") as file:
        file.write(bytes(max(0, room.f_bavail * room.f_frsize - leaving)))
    return filler


@pytest.mark.system
def test_a_full_disk_is_told_and_a_run_goes_on_when_there_is_room(small_disk: Path, made: Path) -> None:
    project = copy_of(made / "sharded", small_disk / "project")
    filler = fill(small_disk, leaving=150_000)
    failed = project.run("dvc", "repro", check=False)
    # Whichever meets it first: the stage, or DVC with its own tables.
    assert failed.returncode != 0 and re.search("No space left on device|database or disk is full", failed.stdout), failed.stdout
    assert not list((project.path / "artifacts").rglob("*.partial"))
    filler.unlink()
    assert "medical-llm version 1" in project.run("dvc", "repro").stdout


@pytest.mark.system
def test_every_stage_that_fills_the_disk_names_a_path_and_what_makes_room(small_disk: Path, made: Path) -> None:
    project = copy_of(made / "trained", small_disk / "project")
    project.environment |= {"TMPDIR": str(small_disk)}
    pipeline = YAML(typ="safe").load(project.path / "dvc.yaml")["stages"]
    for stage in ("check_params", *ALL):
        fill(small_disk, leaving=0)
        # By hand: DVC itself has nowhere to put its lock.
        failed = project.run(sys.executable, *pipeline[stage]["cmd"].split()[2:], check=False)
        line = next((line for line in failed.stdout.splitlines() if line.startswith(f"{stage}: ") and "make gc" in line), "")
        assert failed.returncode and line, failed.stdout
        assert re.search(r"(artifacts|\.cache|mlflow\.db|/tmp|/disk)", line), line
        assert "Traceback" not in failed.stdout
        assert not list((project.path / "artifacts").rglob("*.partial"))


def test_errors_that_only_speak_of_a_full_disk_are_known_too(tmp_path: Path) -> None:
    for error in (
        OSError(errno.ENOSPC, "No space left on device", "model.safetensors"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        sqlite3.OperationalError("database or disk is full"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ):
        with pytest.raises(OSError, match="make gc") as output, told_when_full([tmp_path / "artifacts/model", Path("/proc/self")]):
            raise ValueError("no document could be written") from error
        assert "model.safetensors" in str(output.value) or "/proc/self" in str(output.value)
    with pytest.raises(ValueError, match="^not of the disk$"), told_when_full([tmp_path]):
        raise ValueError("not of the disk")
