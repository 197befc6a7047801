"""What `make deploy` starts: a server, the deployments of prefect.yaml and a worker, which fires by the schedule."""

import time

from conftest import PATIENCE, Project
from deployed import deployed
from mlflow import MlflowClient


def test_a_cron_schedule_fires_and_ends_with_a_registered_version(sharded: Project) -> None:
    fires_and_registers(sharded)


def fires_and_registers(project: Project, **environment: str) -> None:
    """On a server of its own, with a deployment that is due every minute."""
    definition = project.path / "prefect.yaml"
    definition.write_text(definition.read_text().replace('"0 2 * * *"', '"* * * * *"').replace('"*/15 * * * *"', '"0 2 * * *"'))
    project.run("git", "branch", "--move", "main")
    project.run("git", "commit", "--all", "--quiet", "--message", "Every minute")
    with deployed(project, "", **environment) as there:
        deadline = time.monotonic() + PATIENCE
        while True:
            runs = there.runs()
            if any(run["auto_scheduled"] and run["state_name"] == "Completed" for run in runs):
                break
            failed = [run for run in runs if run["state_type"] in ("FAILED", "CRASHED")]
            assert not failed and time.monotonic() < deadline, (failed, there.log.read_text()[-8000:])
            time.sleep(3)
        there.pause("pipeline/nightly")
    store = MlflowClient(tracking_uri=f"sqlite:///{project.path / 'mlflow.db'}")
    assert int(store.get_model_version_by_alias("medical-llm", "champion").version) == 1
