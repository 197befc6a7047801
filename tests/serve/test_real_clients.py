"""Clients that others wrote drive the server, each in an environment of its own at the versions of its lock (``tests/clients``)."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from helpers.project import ROOT
from helpers.serving import RunningServer, run_server

from model.tokenizer.tokenizer import Tokenizer
from setup.install import Installer

pytestmark = pytest.mark.system

CLIENTS = ROOT / "tests" / "clients"
# Without reports to their makers, and without tables of prices from the network.
QUIET = {"LANGSMITH_TRACING": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "true", "PYTHONDONTWRITEBYTECODE": ""}
EXPECTED = {"instructor": 3, "langchain": 8, "litellm": 9, "llama_index": 6}


def environment(name: str) -> Path:
    """The Python of an environment with what a client's lock names; made once."""
    lock = CLIENTS / f"{name}.lock"
    folder = ROOT / ".cache" / "clients" / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    with FileLock(f"{folder}.lock"):
        if not (folder / "ready").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
            Installer(python).locked(lock)
            (folder / "ready").touch()
    return python


@pytest.fixture(scope="module")
def server(wide_checkpoint: Path) -> Iterator[RunningServer]:
    with run_server({"medical-llm": wide_checkpoint}) as running:
        yield running


@pytest.mark.parametrize("name", EXPECTED)
def test_a_client_gets_what_it_asks_for(name: str, server: RunningServer, wide_checkpoint: Path) -> None:
    (brace,) = Tokenizer.from_path(wide_checkpoint).encode("}")
    command: list[str | Path] = [environment(name), CLIENTS / f"{name}_client.py", server.url, str(brace)]
    result = subprocess.run(command, env=os.environ | QUIET, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr[-5000:]
    assert len(result.stdout.splitlines()) == EXPECTED[name], result.stdout
