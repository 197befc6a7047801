"""The stores of a team: DVC's remote and MLflow's artifacts in an S3 store, MLflow on PostgreSQL; by settings alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import pytest
from helpers.builders import write_table
from helpers.deployed import fires_and_registers
from helpers.object_store import Store, object_store
from helpers.postgres import postgres
from helpers.project import Project, commit, free_port, wait_for
from mlflow import MlflowClient

pytestmark = pytest.mark.system
BUCKET = "medical"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with object_store(tmp_path_factory.mktemp("swift")) as swift:
        client = boto3.client("s3", endpoint_url=swift.endpoint, region_name="us-east-1", **keys(swift))
        client.create_bucket(Bucket=BUCKET)
        yield swift


def keys(store: Store) -> dict[str, str]:
    return {"aws_access_key_id": store.access_key, "aws_secret_access_key": store.secret_key}


@pytest.fixture(scope="module")
def database() -> Iterator[int]:
    with postgres("mlflow", "prefect") as port:
        yield port


@pytest.fixture(scope="module")
def mlflow(store: Store, database: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's server on PostgreSQL, its artifacts in the store."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"postgresql+psycopg2://postgres@127.0.0.1:{database}/mlflow"]
    command += ["--artifacts-destination", f"s3://{BUCKET}/mlflow"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_S3_ENDPOINT_URL": store.endpoint}
    environment |= {name.upper(): value for name, value in keys(store).items()} | {"AWS_DEFAULT_REGION": "us-east-1"}
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(120)


def use(project: Project, store: Store) -> None:
    """The team's remote, in DVC's own settings; the keys in the file that git does not track."""
    project.run("dvc", "remote", "add", "--force", "--default", "team", f"s3://{BUCKET}/dvc")
    project.run("dvc", "remote", "modify", "team", "endpointurl", store.endpoint)
    for name, value in keys(store).items():
        project.run("dvc", "remote", "modify", "--local", "team", name.removeprefix("aws_"), value)


def test_what_one_clone_pushes_another_has_without_running_a_stage(copied: Project, store: Store, mlflow: str, tmp_path: Path) -> None:
    copied.environment["MLFLOW_TRACKING_URI"] = mlflow
    use(copied, store)
    commit(copied, "The team's remote")
    copied.run("dvc", "repro")
    commit(copied, "A version in the team's registry")
    copied.run("dvc", "push", "--run-cache")

    copied.run("git", "clone", "--quiet", str(copied.path), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.environment |= {"MLFLOW_TRACKING_URI": mlflow, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    use(clone, store)
    clone.run("dvc", "pull", "--run-cache")
    assert (clone.path / "artifacts" / "shards" / "train_00000.bin").exists()
    assert clone.ran(clone.run("dvc", "repro").stdout) == ["register"]
    (clone.path / "dvc.lock").unlink()  # the run-cache alone knows the results, too
    assert clone.ran(clone.run("dvc", "repro").stdout) == ["register"]
    client = MlflowClient(tracking_uri=mlflow)
    (version,) = client.search_model_versions("name = 'medical-llm'")
    assert str(client.get_run(str(version.run_id)).info.artifact_uri).startswith("mlflow-artifacts:")
    serves_the_champion(clone)


def serves_the_champion(clone: Project) -> None:
    """The server takes the version from the team's store, says which it is, and ends when it is told to."""
    port, copies = free_port(), clone.path.parent / "copies"
    copies.mkdir()
    command = [sys.executable, "-m", "serve", "models:/medical-llm@champion", "--port", str(port), "--slots", "2", "--max-len", "128"]
    log = clone.path.parent / "serve.log"
    with open(log, "wb") as sink:
        server = subprocess.Popen(command, cwd=clone.path, env=clone.environment | {"TMPDIR": str(copies)}, stdout=sink, stderr=sink)
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", server)
        body = {"model": "medical-llm", "prompt": "What are the signs", "max_tokens": 3}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=240)
        assert answer.is_success and answer.headers["x-model-version"].startswith("1-"), (answer.text, log.read_text())
        fetched = {path: path.stat().st_mtime_ns for path in copies.rglob("*")}
        time.sleep(10)  # it has asked three times meanwhile which version is champion
        assert fetched and {path: path.stat().st_mtime_ns for path in copies.rglob("*")} == fetched
    finally:
        server.terminate()
    assert server.wait(120) == 0, log.read_text()


@pytest.mark.campaign  # test_schedule does the same with Prefect's own database
def test_a_schedule_fires_with_prefect_on_postgresql(sharded: Project, database: int) -> None:
    fires_and_registers(sharded, PREFECT_API_DATABASE_CONNECTION_URL=f"postgresql+asyncpg://postgres@127.0.0.1:{database}/prefect")


def test_a_backup_of_the_database_restores_and_upgrades(mlflow: str, database: int, tmp_path: Path) -> None:
    dump, address = str(tmp_path / "mlflow.dump"), ["--host=127.0.0.1", f"--port={database}", "--username=postgres"]
    versions = [(str(v.version), v.tags) for v in MlflowClient(tracking_uri=mlflow).search_model_versions()]
    for command in (
        ["pg_dump", *address, "--format=custom", f"--file={dump}", "mlflow"],
        ["createdb", *address, "restored"],
        ["pg_restore", *address, "--dbname=restored", dump],
        [
            str(Path(sys.executable).with_name("mlflow")),
            "db",
            "upgrade",
            (uri := f"postgresql+psycopg2://postgres@127.0.0.1:{database}/restored"),
        ],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=600)
    assert versions and [(str(v.version), v.tags) for v in MlflowClient(tracking_uri=uri).search_model_versions()] == versions


def test_a_remote_that_does_not_answer_is_told_and_tried_again(copied: Project, store: Store, prefect_api: str, tmp_path: Path) -> None:
    copied.run("git", "branch", "--move", "main")
    use(copied, store)
    copied.run("git", "commit", "--all", "--quiet", "--message", "The team's remote")
    copied.run("git", "clone", "--quiet", "--bare", str(copied.path), str(tmp_path / "origin"))
    copied.run("git", "remote", "add", "origin", str(tmp_path / "origin"))
    copied.run("git", "fetch", "--quiet", "origin")
    copied.run("git", "branch", "--set-upstream-to", "origin/main")

    # A colleague adds a file to the corpus, and pushes.
    copied.run("git", "clone", "--quiet", str(tmp_path / "origin"), str(tmp_path / "colleague"))
    colleague = Project(tmp_path / "colleague")
    use(colleague, store)
    copied.run("dvc", "push", "--quiet", "data.dvc")
    colleague.run("dvc", "pull", "--quiet", "data.dvc")
    write_table(colleague.path / "data" / "more.csv", [(f"What is syndrome {n}?", f"Syndrome {n} is a made-up one.") for n in range(6)])
    for command in (["dvc", "add", "data"], ["dvc", "push", "data.dvc"], ["git", "config", "user.name", "A colleague"]):
        colleague.run(*command)
    colleague.run("git", "config", "user.email", "colleague@example.org")
    colleague.run("git", "commit", "--quiet", "--message", "More data", "data.dvc")
    colleague.run("git", "push", "--quiet", "origin", "main")

    copied.environment |= {"PREFECT_API_URL": prefect_api, "PIPELINE_RETRY_SECONDS": "1", "AWS_MAX_ATTEMPTS": "1"}
    flow = (
        sys.executable,
        "-c",
        "from flows.pipeline import pipeline; print(pipeline(through='shard', revision='main', return_state=True))",
    )
    copied.run("dvc", "remote", "modify", "--local", "team", "endpointurl", f"http://127.0.0.1:{free_port()}")
    output = copied.run(*flow).stdout
    assert "main or its data could not be fetched" in output and "Unavailable" in output and "Retry 1/1" in output
    assert not (copied.path / "data" / "more.csv").exists()
    copied.run("dvc", "remote", "modify", "--local", "team", "endpointurl", store.endpoint)
    assert "shard is up to date" in copied.run(*flow).stdout
    assert (copied.path / "data" / "more.csv").exists()
