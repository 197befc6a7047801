"""Records and MLflow: a store that is away stops nothing but register, and nothing is told twice."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers.pipeline import start
from helpers.project import PATIENCE, ROOT, Project, free_port, wait_for
from mlflow import MlflowClient

from tasks.params import STAGES


def start_server(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    program = str(Path(sys.executable).with_name("mlflow"))
    store = ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "served")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(folder / "server.log", "wb") as log:
        command = [program, "server", *store, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    wait_for(f"http://127.0.0.1:{port}/health", server)
    return server


def runs(client: MlflowClient) -> dict[str, list[str]]:
    experiment = client.get_experiment_by_name("medical-llm")
    assert experiment
    tagged: dict[str, list[str]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        tagged.setdefault(run.data.tags["stage"], []).append(run.data.tags.get("record", ""))
    return tagged


@pytest.mark.campaign  # as a flow: test_outages.py
def test_a_server_that_is_away_stops_only_register_and_hears_of_everything_once(sharded: Project) -> None:
    port = free_port()
    sharded.environment["MLFLOW_TRACKING_URI"] = address = f"http://127.0.0.1:{port}"
    result = sharded.run("dvc", "repro", check=False)
    assert sharded.ran(result.stdout) == ["finetune", "validate", "register"]
    assert result.returncode != 0
    assert f"register: the MLflow server at 127.0.0.1:{port} does not answer" in result.stdout
    assert "wait in .cache/records" in result.stdout and "Traceback" not in result.stdout
    server = start_server(sharded.path.parent, port)
    try:
        again = sharded.run("dvc", "repro")
        assert sharded.ran(again.stdout) == ["register"]
        client = MlflowClient(tracking_uri=address)
        before = runs(client)
        assert set(before) == set(STAGES) and all(len(of_stage) == 1 for of_stage in before.values())
        sharded.run("dvc", "repro")
        assert runs(client) == before
        version = client.get_model_version_by_alias("medical-llm", "champion")
        assert version.run_id
        names = {a.path for a in client.list_artifacts(version.run_id, "checkpoint")}
        assert "checkpoint/model.safetensors" in names
        assert not list((sharded.path / ".cache" / "records").iterdir())
    finally:
        server.terminate()
        server.wait(120)


@pytest.mark.slow
def test_a_store_whose_creation_was_cut_off_is_created_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tasks.registry import tracking; tracking.connect().create_experiment('made')"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open(tmp_path / "log", "wb") as log:
        first = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + PATIENCE
    while not any(database.stat().st_size for database in tmp_path.glob(".cache/*/mlflow.db")):
        assert time.monotonic() < deadline and first.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.001)
    first.kill()
    first.wait()
    assert not (tmp_path / "mlflow.db").exists()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}").get_experiment_by_name("made")


@pytest.mark.slow
def test_an_empty_store_is_filled_from_the_records_and_says_so(copied: Project) -> None:
    first = json.loads((copied.path / "artifacts" / "runs" / "shard.json").read_text())
    client = MlflowClient(tracking_uri=f"sqlite:///{copied.path / 'mlflow.db'}")
    version = client.get_model_version_by_alias("medical-llm", "champion")
    run = client.get_run(version.tags["run.shard"])
    assert run.data.tags["record"] == first["record"] and run.data.tags["imported"] == "true"
    shown = copied.run(sys.executable, "-m", "tasks.registry", "show", "medical-llm@champion").stdout
    assert f"shard  run {run.info.run_id} (imported)" in shown and "raw files  data" in shown


@pytest.mark.system
def test_a_server_that_hangs_holds_no_training_up_and_hears_of_every_step_once(trained: Project) -> None:
    port, steps = free_port(), 500  # enough to be in the middle of when the first are told
    # A second is what the end of the stage waits for each answer that does not come.
    trained.environment |= {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}", "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}
    trained.set_params("finetune", steps=steps, validate_every=steps)
    server = start_server(trained.path.parent, port)
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    try:
        client = MlflowClient(tracking_uri=trained.environment["MLFLOW_TRACKING_URI"])
        training = start(trained, "dvc", "repro", "finetune")
        deadline = time.monotonic() + PATIENCE
        while not (before := losses(client)):
            assert time.monotonic() < deadline and training.poll() is None
            time.sleep(0.2)
        for process in processes:
            process.suspend()
        assert training.wait(PATIENCE) == 0, (trained.path.parent / "log").read_text()
        for process in processes:
            process.resume()
        assert len(before) < steps
        trained.run("dvc", "repro", "register")
        assert losses(client) == list(range(1, steps + 1))
    finally:
        for process in processes:
            process.resume()
        server.terminate()
        server.wait(120)


def losses(client: MlflowClient) -> list[int]:
    """The steps whose loss the store knows of the runs that train, as often as it does."""
    experiment = client.get_experiment_by_name("medical-llm")
    if not experiment:
        return []
    tagged = client.search_runs([experiment.experiment_id], "tags.stage = 'finetune'")
    return [m.step for run in tagged for m in client.get_metric_history(run.info.run_id, "loss")]
