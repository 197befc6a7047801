"""Random requests: each gets an answer or a client's error, as the API's description says, and memory stays bounded.

``make fuzz`` sends 100,000.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import schemathesis
from helpers.project import ROOT, free_port, wait_for
from helpers.serving import CHAT, COMPLETION, error_of, run_server
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from serve.schema import ChatCompletionRequest, CompletionRequest

pytestmark = pytest.mark.slow

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
REQUESTS = int(os.environ.get("FUZZ", "3000"))
CLIENTS = 8
GROWTH = 300 << 20  # bytes; what 8 clients may hold at a time, and no more for more requests
PATHS = (
    *("/v1/completions", "/v1/chat/completions") * 3,
    *("/tokenize", "/detokenize", "/v1/models", "/passport", "/nothing", "/"),
)
FIELDS = sorted({*CompletionRequest.model_fields, *ChatCompletionRequest.model_fields})
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 0.5, 1e-300, 1e300, 1 << 40, 1 << 80, float("nan"), float("inf")),
    *("", "a", "medical-llm", "user", "<|im_end|>", "\ud800", "\x00", "é" * 300, "x" * 5000, "../../etc/passwd", "0.5"),
    *({"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {"enum": ["a", 1]}}}, "required"),
    *([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}], {"5": 3, "a": 1}),
    *([], {}, ["a"], [1, 2, 3], [[1], [2]], ["a"] * 200, [-1], {"a": "b"}, [{"role": "user", "content": "a"}], [{"role": "root"}]),
)


def value(rng: random.Random, depth: int = 0) -> Any:
    if depth < 3 and rng.random() < 0.15:
        if rng.random() < 0.5:
            return [value(rng, depth + 1) for _ in range(rng.randrange(5))]
        return {str(rng.choice(FIELDS)): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(VALUES)


def body(rng: random.Random, model: str) -> bytes:
    fields = dict(rng.choice((COMPLETION, CHAT)), model=model, max_tokens=rng.choice((1, 2, 3)))
    for _ in range(rng.randrange(4)):
        fields[rng.choice([*FIELDS, "other"])] = value(rng)
    if fields.get("stream") not in (True, None):
        fields["stream"] = rng.random() < 0.3
    whole = json.dumps(fields).encode()
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        at = rng.randrange(len(whole))
        whole = whole[:at] + rng.choice((b"", b"\xff", b"{", b'"', b"[" * 50, b"\\u0000", b",")) + whole[at + rng.randrange(3) :]
    return whole


def send(client: httpx.Client, model: str, seed: int) -> None:
    rng = random.Random(seed)
    method = rng.choice(("POST", "POST", "POST", "POST", "GET", "PUT"))
    headers = {"Content-Type": rng.choice(("application/json", "application/json", "text/plain", ""))}
    answer = client.request(method, rng.choice(PATHS), content=body(rng, model), headers=headers)
    assert answer.status_code == 200 or (400 <= answer.status_code < 500 and error_of(answer)), answer.text


def test_any_request_gets_an_answer_or_a_clients_error(tiny_checkpoint: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "serve", str(tiny_checkpoint), "--unverified", "--port", str(port), "--slots", "4"]
    good = COMPLETION | {"model": tiny_checkpoint.name}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/healthz", process)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=240) as client:
                before = client.post("/v1/completions", json=good).json()["choices"]

                held = []
                with ThreadPoolExecutor(CLIENTS) as pool:
                    for part in range(10):
                        seeds = range(REQUESTS * part // 10, REQUESTS * (part + 1) // 10)
                        list(pool.map(lambda seed: send(client, tiny_checkpoint.name, seed), seeds))
                        held.append(psutil.Process(process.pid).memory_info().rss)
                assert client.post("/v1/completions", json=good).json()["choices"] == before
                print(f"{REQUESTS} requests; the server's memory after each tenth, MB: {[h >> 20 for h in held]}")
                assert held[-1] < held[0] + GROWTH
        finally:
            process.terminate()
        assert process.wait(120) == 0


def test_responses_match_the_openapi_description(tiny_checkpoint: Path) -> None:
    with run_server({"medical-llm": tiny_checkpoint}) as server:
        description = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        statuses: Counter[int] = Counter()
        for operation in description.get_all_operations():
            assert isinstance(operation, Ok)

            @given(operation.ok().as_strategy())
            @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
            def validate(case: Any) -> None:
                if isinstance(case.body, dict):  # a model that is there, so that more than its name is looked at
                    case.body |= {"model": "medical-llm", "max_tokens": 2, "min_tokens": 0}
                    for name in ("logit_bias", "response_format", "stop_token_ids", "tool_choice", "tools"):
                        if sum(statuses.values()) % 2:  # most of these are refused
                            case.body.pop(name, None)
                statuses[case.call_and_validate(checks=CHECKS).status_code] += 1

            validate()
        assert statuses[200] > 30, statuses
        assert server.idle() and server.client.post("/v1/completions", json=COMPLETION).status_code == 200
