"""Registered versions in the tracking store of a project: their artifacts, damaged or loaded by MLflow."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from helpers.project import Project

NAME = "medical-llm"
CODE = (
    "import mlflow, sys; mlflow.set_tracking_uri('sqlite:///mlflow.db');"
    "print(mlflow.pyfunc.load_model(sys.argv[1]).predict(['What is it?'], params={'max_new_tokens': 4}))"
)


def version_of(project: Project, number: str = "1") -> Any:
    return MlflowClient(tracking_uri=f"sqlite:///{project.path / 'mlflow.db'}").get_model_version(NAME, number)


def artifacts_of(project: Project, number: str = "1") -> Path:
    client = MlflowClient(tracking_uri=f"sqlite:///{project.path / 'mlflow.db'}")
    return Path(client.download_artifacts(version_of(project, number).run_id, ""))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def load_from_mlflow(project: Project, which: str = f"models:/{NAME}/1") -> subprocess.CompletedProcess[str]:
    """Load a version in a new process and generate from it."""
    # Not from the project's directory, so that the version's own copy of the code runs.
    environment = project.environment | {"PYTHONDONTWRITEBYTECODE": ""}
    code = CODE.replace("sqlite:///mlflow.db", f"sqlite:///{project.path}/mlflow.db")
    command = [sys.executable, "-c", code, which]
    return subprocess.run(command, cwd="/", env=environment, text=True, capture_output=True, check=False)
