"""A server of random weights, a client of it, and its model. Modules that need others have fixtures of their own."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import openai

    from helpers.serving import RunningServer
    from model.generation.completion import Llama

# Imported where they are needed, as most tests do without.


@pytest.fixture(scope="module")
def server(wide_checkpoint: Path) -> "Iterator[RunningServer]":
    from helpers.serving import run_server

    with run_server({"medical-llm": wide_checkpoint}) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: "RunningServer") -> "openai.OpenAI":
    import openai

    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def llama(wide_checkpoint: Path) -> "Llama":
    from model.generation.completion import Llama

    return Llama.build(wide_checkpoint)
