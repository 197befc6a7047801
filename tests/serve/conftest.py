"""A server, a client of it, and the model that it has; modules that need others have fixtures of their own."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from helpers.serving import RunningServer, run_server

from model.generation.completion import Llama


@pytest.fixture(scope="module")
def server(wide_checkpoint: Path) -> Iterator[RunningServer]:
    with run_server({"medical-llm": wide_checkpoint}) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def llama(wide_checkpoint: Path) -> Llama:
    return Llama.build(wide_checkpoint)
