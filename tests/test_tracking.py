"""Records and MLflow: a store that is away stops nothing but register, and nothing is told twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import Project, free_port, wait_for
from mlflow import MlflowClient

from tasks.stage import STAGES


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
    found: dict[str, list[str]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        found.setdefault(run.data.tags["stage"], []).append(run.data.tags.get("record", ""))
    return found


def test_a_server_that_is_away_stops_only_register_and_hears_of_everything_once(project: Project) -> None:
    port = free_port()
    project.environment["MLFLOW_TRACKING_URI"] = address = f"http://127.0.0.1:{port}"
    result = project.run("dvc", "repro", check=False)
    assert project.ran(result.stdout) == list(STAGES)
    assert result.returncode != 0
    assert f"register: the MLflow server at 127.0.0.1:{port} does not answer" in result.stdout
    assert "wait in .cache/records" in result.stdout and "Traceback" not in result.stdout
    server = start_server(project.path.parent, port)
    try:
        again = project.run("dvc", "repro")
        assert project.ran(again.stdout) == ["register"]
        client = MlflowClient(tracking_uri=address)
        told = runs(client)
        assert set(told) == set(STAGES) and all(len(of_stage) == 1 for of_stage in told.values())
        project.run("dvc", "repro")
        assert runs(client) == told
        version = client.get_model_version_by_alias("medical-llm", "champion")
        assert version.run_id
        names = {a.path for a in client.list_artifacts(version.run_id, "checkpoint")}
        assert "checkpoint/model.safetensors" in names
        assert not list((project.path / ".cache" / "records").iterdir())
    finally:
        server.terminate()
        server.wait(30)


def test_an_empty_store_is_filled_from_the_records_and_says_so(copied: Project) -> None:
    first = json.loads((copied.path / "artifacts" / "runs" / "shard.json").read_text())
    client = MlflowClient(tracking_uri=f"sqlite:///{copied.path / 'mlflow.db'}")
    version = client.get_model_version_by_alias("medical-llm", "champion")
    run = client.get_run(version.tags["run.shard"])
    assert run.data.tags["record"] == first["record"] and run.data.tags["imported"] == "true"
    shown = copied.run(sys.executable, "-m", "tasks.lineage", "show", "medical-llm@champion").stdout
    assert "shard  run" in shown and "(imported)" in shown and "read   data" in shown
