"""Two hundred streams at once, greedy or with a seed: each gives the text that it gives alone."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.project import ROOT
from helpers.serving import RunningServer, run_server

from model.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.slow

STREAMS, NEW = 200, 24
CHUNK = 128  # tokens that are read at a time here, as the tiny model's context is 256
BASE = ROOT / "artifacts" / "base"


@pytest.fixture(params=["tiny", pytest.param("base", marks=pytest.mark.campaign)])
def served(
    request: pytest.FixtureRequest, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[RunningServer, Tokenizer]]:
    monkeypatch.setattr("serve.engine.CHUNK", CHUNK)
    checkpoint = tiny_checkpoint if request.param == "tiny" else BASE
    if not checkpoint.exists():
        pytest.skip(f"{BASE} is missing; 'make run' makes it")
    with run_server({"medical-llm": checkpoint}, slots=16, max_waiting=STREAMS) as server:
        yield server, Tokenizer.from_path(checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0, pytest.param(0.8, marks=pytest.mark.campaign)])
def test_two_hundred_streams_each_say_what_they_say_alone(served: tuple[RunningServer, Tokenizer], temperature: float) -> None:
    server, tokenizer = served
    # Beginnings that some of them share, shorter and longer than what is read at a time.
    prompts = [tokenizer.prompt("It may come with fever. " * (n % 5 * 3) + f"Condition {n} is a disease in which") for n in range(STREAMS)]
    assert min(map(len, prompts)) < CHUNK < max(map(len, prompts))

    def tokens(index: int) -> list[str]:
        """Their names, which are all different."""
        fixed: dict[str, Any] = {"model": "medical-llm", "max_tokens": NEW, "stream": True, "logprobs": 0}
        body = fixed | {"temperature": temperature, "seed": index, "prompt": prompts[index]}
        names: list[str] = []
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=600) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    names += json.loads(line[6:])["choices"][0]["logprobs"]["tokens"]
        return names

    alone = [tokens(n) for n in range(STREAMS)]
    with ThreadPoolExecutor(STREAMS) as pool:
        together = list(pool.map(tokens, range(STREAMS)))
    assert server.idle() and sum(map(len, alone)) > STREAMS * NEW / 2  # most of them do say something
    assert [n for n in range(STREAMS) if alone[n] != together[n]] == []
