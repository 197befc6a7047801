"""A project whose deployments are applied to a real Prefect server and run by a real worker."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
from dotenv import dotenv_values
from mlflow import MlflowClient

from helpers.project import PATIENCE, Project

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass
class Deployed:
    """What a person does in Prefect's pages, through the same addresses."""

    project: Project
    api: str
    process: "subprocess.Popen[bytes]"
    log: Path = field(default=Path())

    def start(self, deployment: str, **parameters: object) -> str:
        """Start a run; its id."""
        reply = self._ask("get", f"/deployments/name/{deployment}")
        return str(self._ask("post", f"/deployments/{reply['id']}/create_flow_run", {"parameters": parameters})["id"])

    def state(self, run: str) -> dict[str, Any]:
        return dict(self._ask("get", f"/flow_runs/{run}")["state"])

    def wait(self, run: str, *, seconds: float = PATIENCE) -> dict[str, Any]:
        """The state in which a run ends."""
        deadline = time.monotonic() + seconds
        while (state := self.state(run))["type"] not in ENDED:
            assert time.monotonic() < deadline, (state, self.log.read_text()[-5000:])
            time.sleep(0.5)
        return state

    def wait_until(self, run: str, *types: str, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while (state := self.state(run))["type"] not in types:
            assert time.monotonic() < deadline and state["type"] not in ENDED, (state, self.log.read_text()[-5000:])
            time.sleep(0.2)

    def cancel(self, run: str) -> None:
        self._ask("post", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    def suspend(self, run: str) -> None:
        state = {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True, "pause_key": "by hand"}}
        self._ask("post", f"/flow_runs/{run}/set_state", {"state": state})

    def resume(self, run: str) -> None:
        self._ask("post", f"/flow_runs/{run}/resume", {})

    def tasks(self, run: str) -> dict[str, dict[str, Any]]:
        """The task runs of a run by name; the server files them a moment after they end."""
        time.sleep(3)
        return {t["name"]: t for t in self._ask("post", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})}

    def logs(self, run: str) -> list[str]:
        time.sleep(3)
        reply = self._ask("post", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"})
        return [line["message"] for line in reply]

    def runs(self) -> list[dict[str, Any]]:
        """All that have ended."""
        return list(self._ask("post", "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": list(ENDED)}}}}))

    def pause(self, deployment: str) -> None:
        """Have it start no further runs, and wait for one that it has started."""
        reply = self._ask("get", f"/deployments/name/{deployment}")
        self._ask("post", f"/deployments/{reply['id']}/pause_deployment")
        for run in self._ask("post", "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}}):
            self.wait(run["id"])

    def worker(self) -> psutil.Process:
        """The worker's own process."""
        reply = self.part("worker")
        assert reply
        return reply

    def part(self, name: str, *, missing_ok: bool = False) -> psutil.Process | None:
        """The process of what ``make deploy`` keeps running: the worker, the server."""
        for process in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if name in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    return process
        assert missing_ok, name
        return None

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.api}/health", timeout=5).is_success:
                    return
            time.sleep(0.3)
        raise AssertionError(self.log.read_text()[-5000:])

    def _ask(self, method: str, address: str, body: object = None) -> Any:
        deadline = time.monotonic() + PATIENCE
        key = dotenv_values(self.project.path / ".env").get("PREFECT_API_AUTH_STRING")
        auth = httpx.BasicAuth(*key.split(":")) if key else None
        ask = partial(httpx.request, method, self.api + address, json=body, timeout=240, auth=auth)
        while (answer := ask()).status_code == httpx.codes.SERVICE_UNAVAILABLE:
            assert time.monotonic() < deadline, answer.text  # what a busy SQLite makes of the server
            time.sleep(0.5)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


@contextmanager
def deployed(project: Project, api: str, **environment: str) -> Iterator[Deployed]:
    """``make deploy`` in the project, with a server that is there, or, where none is named, one of its own."""
    log = project.path.parent / "deploy.log"
    variables = project.environment | ({"PREFECT_API_URL": api} if api else {}) | {"PYTHONUNBUFFERED": "1"} | environment
    with open(log, "ab") as sink:
        start = log.stat().st_size
        command = [sys.executable, "-m", "flows.deploy"]
        process = subprocess.Popen(command, cwd=project.path, env=variables, stdout=sink, stderr=sink, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE
        while b"started!" not in log.read_bytes()[start:]:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        address = re.findall(r"^Prefect  (http\S+)$", log.read_text()[start:], flags=re.M)[-1]
        yield Deployed(project, f"{address}/api", process, log)
    finally:
        process.terminate()
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


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
