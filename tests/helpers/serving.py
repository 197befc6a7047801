"""A real server on loopback, in a thread of the tests' process so that tests can look into its engines; requests; a refused start."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from helpers.project import ROOT, free_port
from serve.api import application
from serve.connection import Connection
from serve.models import EngineOptions
from serve.preferences import PreferenceFile
from serve.rollout import ModelRollout, Rollout
from serve.security import Limits, SecurityMiddleware
from tasks.registry.serving_log import ServingLog

QUESTION = "What are the signs of condition 3?"
COMPLETION: Any = {"model": "medical-llm", "prompt": QUESTION, "max_tokens": 12, "temperature": 0}
CHAT: Any = {"model": "medical-llm", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12, "temperature": 0}

VITALS = {
    "type": "object",
    "properties": {"pulse": {"type": "integer", "minimum": 0, "maximum": 300}, "fever": {"type": "boolean"}},
    "required": ["pulse", "fever"],
}  # a JSON Schema


@dataclass
class RunningServer:
    """A server with a client for it. ``rollouts`` and ``middleware`` are the server's own objects."""

    url: str
    rollouts: dict[str, Rollout]
    middleware: SecurityMiddleware
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=240)

    def idle(self, seconds: float = 10) -> bool:
        """Wait up to ``seconds`` for all slots to be free; whether they are."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            loads = [rollout.served.engine.load() for rollout in self.rollouts.values() if rollout.served]
            if not any(load.waiting + load.prefill + load.running for load in loads):
                return True
            time.sleep(0.01)
        return False


@contextmanager
def run_server(
    models: dict[str, Path | str],
    *,
    adapters: dict[str, Path | str] | None = None,
    slots: int = 4,
    max_waiting: int = 64,
    unverified: bool = True,
    keys: tuple[str, ...] = (),
    limits: Limits | None = None,
    poll_seconds: float = 0.2,
    preferences: PreferenceFile | None = None,
    log: ServingLog | None = None,
) -> Iterator[RunningServer]:
    """A server for ``models``, sources by the names that clients use, the first with ``adapters``; it ends with the context."""
    options = EngineOptions(slots=slots, max_len=None, max_waiting=max_waiting, unverified=unverified)
    rollouts: dict[str, Rollout] = {}
    for name, source in models.items():
        own = {} if rollouts else {adapter: str(path) for adapter, path in (adapters or {}).items()}
        rollouts[name] = ModelRollout(str(source), options, poll_seconds=poll_seconds, adapters=own, log=log)
    rollouts |= next(iter(rollouts.values())).adapters
    middleware = application(rollouts, keys=keys, limits=limits or Limits(), preferences=preferences)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(middleware, host="127.0.0.1", port=port, log_config=None, access_log=False, http=Connection, ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 240
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    running = RunningServer(f"http://127.0.0.1:{port}", rollouts, middleware)
    try:
        yield running
    finally:
        running.client.close()
        server.should_exit = True
        thread.join(20)
        for rollout in rollouts.values():
            rollout.close(0)


def refused(*arguments: str, **environment: str) -> str:
    """What the program says when it refuses to start."""
    command = [sys.executable, "-m", "serve", *arguments, "--port", str(free_port())]
    result = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    return result.stderr


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error of a response, after a check of its shape."""
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
    assert body["error"]["message"] and body["error"]["type"] and "Traceback" not in response.text
    return dict(body["error"])


def bearer(key: str) -> dict[str, str]:
    """The header that sends an API key."""
    return {"Authorization": f"Bearer {key}"}


def post(server: RunningServer, path: str = "/v1/completions", /, **fields: Any) -> httpx.Response:
    """The answer to a request with these fields; ``...`` leaves one out."""
    body = (CHAT if "chat" in path else COMPLETION) | fields
    return server.client.post(path, json={name: value for name, value in body.items() if value is not ...})


def text_of(response: httpx.Response) -> str:
    """The text of the first choice."""
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])
