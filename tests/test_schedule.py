"""The deployment of prefect.yaml, applied with Prefect's own command, fires by its schedule."""

import json
import subprocess
import sys
import time

import pytest
from conftest import Project
from mlflow import MlflowClient


@pytest.mark.timeout(900)
def test_a_cron_schedule_fires_and_ends_with_a_registered_version(project: Project, prefect_api: str) -> None:
    project.environment["PREFECT_API_URL"] = prefect_api
    definition = project.path / "prefect.yaml"
    definition.write_text(definition.read_text().replace('"0 2 * * *"', '"* * * * *"'))
    project.run("prefect", "work-pool", "create", "--type", "process", "local")
    project.run("prefect", "--no-prompt", "deploy", "--all")
    log = open(project.path.parent / "worker.log", "wb")  # noqa: SIM115
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "local"]
    worker = subprocess.Popen(command, cwd=project.path, env=project.environment, stdout=log, stderr=log)
    question = """
import json
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
# Those that are scheduled would fill the page: Prefect plans a hundred ahead.
ended = FlowRunFilterState(type=FlowRunFilterStateType(any_=["COMPLETED", "FAILED", "CRASHED"]))
with get_client(sync_client=True) as client:
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=ended), limit=50)
print(json.dumps([[r.auto_scheduled, r.state_name] for r in runs]))
"""
    try:
        deadline = time.monotonic() + 480
        while True:
            states = json.loads(project.run(sys.executable, "-c", question).stdout.splitlines()[-1])
            if [True, "Completed"] in states:
                break
            assert [True, "Failed"] not in states and [True, "Crashed"] not in states, (project.path.parent / "worker.log").read_text()
            assert time.monotonic() < deadline, (states, (project.path.parent / "worker.log").read_text())
            time.sleep(10)  # each question costs seconds of CPU that the run needs
    finally:
        worker.terminate()
        worker.wait(60)
        project.run("prefect", "--no-prompt", "deployment", "delete", "pipeline/nightly")
    store = MlflowClient(tracking_uri=f"sqlite:///{project.path / 'mlflow.db'}")
    assert int(store.get_model_version_by_alias("medical-llm", "champion").version) == 1
