"""A real server on loopback, in a thread of the tests' process, so that they can look into its engines; what is asked of it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from helpers.project import free_port
from serve.api import application
from serve.connection import Connection
from serve.models import Opening
from serve.rollout import Rollout
from serve.trust import Limits, Trust

QUESTION = "What are the signs of condition 3?"
ASK: Any = {"model": "medical-llm", "prompt": QUESTION, "max_tokens": 12, "temperature": 0}
CHAT: Any = {"model": "medical-llm", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12, "temperature": 0}


@dataclass
class Running:
    url: str
    rollouts: dict[str, Rollout]
    trust: Trust
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=240)

    def idle(self, seconds: float = 10) -> bool:
        """Whether every slot is free, by then."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            loads = [rollout.current.engine.load() for rollout in self.rollouts.values()]
            if not any(load.waiting + load.reading + load.going for load in loads):
                return True
            time.sleep(0.01)
        return False


@contextmanager
def running(
    models: dict[str, Path | str],
    *,
    slots: int = 4,
    waiting: int = 64,
    unverified: bool = True,
    keys: tuple[str, ...] = (),
    limits: Limits | None = None,
    seconds: float = 0.2,
) -> Iterator[Running]:
    how = Opening(slots=slots, max_len=None, waiting=waiting, unverified=unverified)
    rollouts = {name: Rollout(str(which), how, seconds=seconds) for name, which in models.items()}
    trust = application(rollouts, keys=keys, limits=limits or Limits())
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(trust, host="127.0.0.1", port=port, log_config=None, access_log=False, http=Connection, ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 240
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    handle = Running(f"http://127.0.0.1:{port}", rollouts, trust)
    try:
        yield handle
    finally:
        handle.client.close()
        server.should_exit = True
        thread.join(20)
        for rollout in rollouts.values():
            rollout.close(0)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error, in OpenAI's shape."""
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
    assert body["error"]["message"] and body["error"]["type"] and "Traceback" not in answer.text
    return dict(body["error"])


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
