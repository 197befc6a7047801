"""Two hundred streams at once: under greedy decoding each says what it says alone, or goes another way at a near-tie."""

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from conftest import ROOT
from serving import Running, running

from model.completion import Llama
from model.generate import generate

STREAMS, NEW = 200, 24
BASE = ROOT / "artifacts" / "base"


@pytest.fixture(params=["tiny", pytest.param("base", marks=pytest.mark.campaign)])
def served(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Iterator[tuple[Running, Llama]]:
    checkpoint = tiny_checkpoint if request.param == "tiny" else BASE
    if not checkpoint.exists():
        pytest.skip(f"{BASE} is missing; 'make run' makes it")
    with running({"medical-llm": checkpoint}, slots=16, waiting=STREAMS) as server:
        yield server, Llama.build(checkpoint)


def test_two_hundred_streams_each_say_what_they_say_alone(served: tuple[Running, Llama]) -> None:
    server, llama = served
    prompts = [
        llama.tokenizer.prompt("It may come with fever. " * (n % 5) + f"Condition {n} is a disease in which") for n in range(STREAMS)
    ]

    def tokens(number: int) -> list[str]:
        """Their names, which are all different."""
        fixed: dict[str, Any] = {"model": "medical-llm", "max_tokens": NEW, "temperature": 0, "stream": True, "logprobs": 0}
        body = fixed | {"prompt": prompts[number]}
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
    other = [n for n in range(STREAMS) if alone[n] != together[n]]
    ties = {n: near_tie(llama, prompts[n], alone[n], together[n]) for n in other}
    print(f"{len(other)} of {STREAMS} streams went another way; the solo run's top two logits there, in steps of bfloat16: {ties}")
    assert all(steps <= 1 for steps in ties.values())


def near_tie(llama: Llama, prompt: list[int], alone: list[str], together: list[str]) -> float:
    """How far apart the likeliest two tokens are where the two first differ, in distances between neighbouring bfloat16 numbers."""
    same = next((n for n, (one, other) in enumerate(zip(alone, together, strict=False)) if one != other), None)
    if same is None:  # one only ends sooner
        return math.inf
    said = [token.id for (token,) in generate(llama.model, [prompt], max_new_tokens=max(same, 1)) if token][:same]
    with torch.inference_mode():
        logits = llama.model.lm_head(llama.model.hidden(torch.tensor([prompt + said]))[0, -1])
    first, second = logits.float().topk(2).values.tolist()
    return float((first - second) / 2.0 ** (math.floor(math.log2(abs(first))) - 7))
