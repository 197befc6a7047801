"""The pipeline as a process: started, watched while it trains, and seen to be gone."""

import subprocess
import sys
import time

import psutil
from mlflow import MlflowClient

from helpers.project import PATIENCE, Project

FLOW = (sys.executable, "-m", "flows.pipeline")


def store(project: Project) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{project.path / 'mlflow.db'}")


def start(project: Project, *command: str) -> "subprocess.Popen[bytes]":
    log = open(project.path.parent / "log", "wb")  # noqa: SIM115
    return subprocess.Popen(command, cwd=project.path, env=project.environment, stdout=log, stderr=log, start_new_session=True)


def wait_until_training(project: Project) -> None:
    deadline = time.monotonic() + PATIENCE
    while not list((project.path / ".cache" / "train").glob("*/[0-9]*")):
        assert time.monotonic() < deadline, (project.path.parent / "log").read_text()
        time.sleep(0.02)


def wait_until_gone(project: Project) -> None:
    """Every process of the project has ended."""
    deadline = time.monotonic() + PATIENCE
    while left := processes_in(project):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def steps_told(project: Project) -> list[list[int]]:
    """Of each run of finetune in MLflow, the steps whose loss it knows, as often as it does."""
    client = store(project)
    (experiment,) = (e for e in client.search_experiments() if e.name == "medical-llm")
    tuned = client.search_runs([experiment.experiment_id], "tags.stage = 'finetune'")
    return [sorted(m.step for m in client.get_metric_history(run.info.run_id, "loss")) for run in tuned]


def processes_in(project: Project) -> list[str]:
    """Command lines of the processes that work in the project's directory."""
    entries = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project.path):
                entries.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return entries


def lives(process: psutil.Process) -> bool:
    """Whether it runs; one whose end nobody has collected yet does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
