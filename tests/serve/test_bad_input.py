"""What no client would send: an error in OpenAI's shape, and the next good request is answered."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.serving import CHAT, COMPLETION, RunningServer, error_of, run_server

from serve.connection import Connection
from serve.security import Limits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path) -> Iterator[RunningServer]:
    with run_server({"medical-llm": tiny_checkpoint}, limits=Limits(max_body_bytes=1 << 20, body_seconds=1.0)) as running:
        yield running


DEEP = '{"model": "medical-llm", "prompt": ' + "[" * 100_000 + "]" * 100_000 + "}"
BAD_BODIES: dict[str, bytes] = {
    "broken": b'{"model": "medical-llm", "prompt": "a',
    "empty": b"",
    "no object": b"[1, 2]",
    "null": b"null",
    "not UTF-8": b'{"model": "medical-llm", "prompt": "\xff\xfe"}',
    "deep": DEEP.encode(),
    "deep and ignored": DEEP.replace("prompt", "metadata").encode(),
    "an endless number": b'{"model": "medical-llm", "prompt": "a", "seed": ' + b"9" * 10_000 + b"}",
}
DEEP_SCHEMA: dict[str, Any] = {}
for _ in range(200):
    DEEP_SCHEMA = {"type": "array", "items": DEEP_SCHEMA}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BAD_FIELDS: dict[str, dict[str, Any]] = {
    "NaN": {"temperature": float("nan")},
    "infinite": {"top_p": float("inf")},
    "negative temperature": {"temperature": -1},
    "a word for a number": {"temperature": "0.5 or so"},
    "a word for a number of tokens": {"max_tokens": "NaN"},
    "a truth for a number": {"max_tokens": True},
    "no tokens": {"max_tokens": 0},
    "negative tokens": {"max_tokens": -5},
    "fewer tokens than at least": {"max_tokens": 5, "min_tokens": 6},
    "more than a machine's number": {"n": 10**30},
    "half a choice": {"n": 1.5},
    "too many choices": {"n": 10_000},
    "huge seed": {"seed": 1 << 80},
    "top_p of nothing": {"top_p": 0},
    "top_k": {"top_k": -2},
    "min_p": {"min_p": 2},
    "a penalty of nothing": {"repetition_penalty": 1e-300},
    "an empty stop": {"stop": ""},
    "a long stop": {"stop": "x" * 1000},
    "many stops": {"stop": [str(n) for n in range(10_000)]},
    "a stop of another type": {"stop": [1]},
    "half a surrogate": {"prompt": "fever \ud800"},
    "half a surrogate in a stop": {"stop": ["\udfff"]},
    "empty prompt": {"prompt": ""},
    "no prompts": {"prompt": []},
    "mixed prompts": {"prompt": ["a", 1]},
    "many prompts": {"prompt": ["a"] * 1000},
    "tokens of another vocabulary": {"prompt": [10**6]},
    "negative tokens as a prompt": {"prompt": [-1]},
    "prompts times choices": {"prompt": ["a"] * 100, "n": 16},
    "unknown field": {"temprature": 1},
    "very many unknown fields": {f"unheard_of_{n}": n for n in range(100)},
    "what would change the answer": {"typical_p": 0.5},
    "another server's name": {"n_predict": 5},
    "a large penalty": {"frequency_penalty": 3},
    "a bias of a word": {"logit_bias": {"fever": 5}},
    "a large bias": {"logit_bias": {"5": 101}},
    "a bias of no token": {"logit_bias": {"99999999": 1}},
    "an endless bias": {"logit_bias": {"5": float("inf")}},
    "a stop at no token": {"stop_token_ids": [10**8]},
    "a stop at a word": {"stop_token_ids": ["a"]},
    "a format without its schema": {"response_format": {"type": "json_schema"}},
    "a schema of another format": {"response_format": {"type": "text", "json_schema": {"schema": {}}}},
    "a schema that is none": {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "person"}}}},
    "a schema that cannot be demanded": {
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array", "uniqueItems": True}}}
    },
    "a deep schema": {"response_format": {"type": "json_schema", "json_schema": {"schema": DEEP_SCHEMA}}},
    "a schema of half a surrogate": {"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": "\ud800"}}}},
    "grounded without a schema": {"response_format": {"type": "text", "grounded": True}},
    "grounded in two prompts": {"prompt": ["a", "b"], "response_format": {"type": "json_object", "grounded": True}},
    "grounded in tokens": {"prompt": [5], "response_format": {"type": "json_object", "grounded": True}},
    "grounded by a word": {"response_format": {"type": "json_object", "grounded": "yes"}},
    "an endless answer in a form": {"response_format": {"type": "json_object"}, "ignore_eos": True},
    "a suffix": {"suffix": "end"},
    "best_of": {"best_of": 3},
    "options of no stream": {"stream_options": {"include_usage": True}},
    "many log-probabilities": {"logprobs": 1000},
    "a model that is no word": {"model": 5},
}
BAD_CHATS: dict[str, dict[str, Any]] = {
    "no messages": {"messages": []},
    "half a surrogate": {"messages": [{"role": "user", "content": "\ud800"}]},
    "messages as a word": {"messages": "hello"},
    "an unknown role": {"messages": [{"role": "root", "content": "a"}]},
    "no content": {"messages": [{"role": "user"}]},
    "a user's call": {"messages": [{"role": "user", "content": "a", "tool_calls": [CALL]}]},
    "a call of no JSON": {"messages": [{"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "{"}}]}]},
    "deep arguments of a call": {
        "messages": [{"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "[" * 100_000}}]}]
    },
    "tools beside a grounded answer": {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "response_format": {"type": "json_object", "grounded": True},
    },
    "an endless answer with tools": {"tools": [{"type": "function", "function": {"name": "f"}}], "ignore_eos": True},
    "a picture": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9"}}]}]},
    "too many messages": {"messages": [{"role": "user", "content": "a"}] * 1000},
    "a tool that is no function": {"tools": [{"type": "web_search"}]},
    "a tool's name": {"tools": [{"type": "function", "function": {"name": "f g"}}]},
    "two tools of one name": {"tools": [{"type": "function", "function": {"name": "f"}}] * 2},
    "a tool's parameters": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "word"}}}]},
    "a strict tool's parameters": {
        "tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"properties": {"a": {"not": {}}}}}}]
    },
    "a call of no tool": {"tool_choice": "required"},
    "a call of another tool": {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": {"type": "function", "function": {"name": "g"}},
    },
    "what the template reads": {"chat_template_kwargs": {"add_generation_prompt": False}},
    "two limits": {"max_tokens": 5, "max_completion_tokens": 6},
    "tops alone": {"top_logprobs": 2},
}


class TestBadInput:
    @pytest.fixture(autouse=True)
    def the_next_good_request_is_answered(self, server: RunningServer) -> Iterator[None]:
        yield
        assert server.client.post("/v1/completions", json=COMPLETION | {"max_tokens": 1}).status_code == 200 and server.idle()

    def send(self, server: RunningServer, body: bytes, path: str = "/v1/completions") -> httpx.Response:
        begun = time.monotonic()
        answer = server.client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert time.monotonic() - begun < 5
        return answer

    @pytest.mark.parametrize("name", BAD_BODIES)
    def test_bodies(self, server: RunningServer, name: str) -> None:
        for path in ("/v1/completions", "/v1/chat/completions"):
            answer = self.send(server, BAD_BODIES[name], path)
            assert answer.status_code == 400 and error_of(answer)

    @pytest.mark.parametrize("name", BAD_FIELDS)
    def test_fields(self, server: RunningServer, name: str) -> None:
        answer = self.send(server, json.dumps(COMPLETION | BAD_FIELDS[name]).encode())
        assert answer.status_code in (400, 404) and error_of(answer)

    @pytest.mark.parametrize("name", BAD_CHATS)
    def test_chats(self, server: RunningServer, name: str) -> None:
        answer = self.send(server, json.dumps(CHAT | BAD_CHATS[name]).encode(), "/v1/chat/completions")
        assert answer.status_code == 400 and error_of(answer)

    def test_fields_that_change_nothing_are_accepted(self, server: RunningServer) -> None:
        harmless = {"user": "u", "metadata": {"a": "b"}, "store": False, "frequency_penalty": 0, "logit_bias": {}, "stop": None, "n": None}
        assert server.client.post("/v1/completions", json=COMPLETION | harmless).status_code == 200

    def test_a_body_of_fifty_megabytes(self, server: RunningServer) -> None:
        answer = self.send(server, b'{"prompt": "' + b"x" * 50_000_000 + b'"}')
        assert answer.status_code == 413 and error_of(answer)["code"] == "body_too_large"

    def test_a_body_without_end(self, server: RunningServer) -> None:
        def parts() -> Iterator[bytes]:
            for _ in range(40):
                yield b"x" * 100_000

        answer = server.client.post("/v1/completions", content=parts())
        assert answer.status_code == 413 and error_of(answer)

    def test_a_body_that_does_not_come(self, server: RunningServer) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")

    @pytest.mark.slow
    def test_a_head_that_does_not_come(self, server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Connection, "head_seconds", 0.3)
        host, port = server.url.removeprefix("http://").split(":")
        begun = time.monotonic()
        for head in (b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea"):
            with socket.create_connection((host, int(port)), timeout=10) as slow:
                slow.sendall(head)
                while slow.recv(1000):
                    pass
        assert time.monotonic() - begun < 8  # five seconds of them uvicorn's, for what follows an answer

    def test_more_connections_than_are_served(self, server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Connection, "max_connections", 8)
        host, port = server.url.removeprefix("http://").split(":")
        many = [socket.create_connection((host, int(port)), timeout=10) for _ in range(12)]
        try:
            head, _, body = many[-1].makefile("rb").read().partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n") and b"retry-after: 1" in head
            assert json.loads(body)["error"]["code"] == "unavailable"
        finally:
            for connection in many:
                connection.close()

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/v1/nothing", 404),
            ("GET", "/../../etc/passwd", 404),
            ("GET", "/%2e%2e/etc/passwd", 404),
            ("GET", "/v1/completions", 405),
            ("DELETE", "/v1/models", 405),
            ("GET", "/v1/models/..%2f..%2fetc", 404),
            ("GET", "/passport?model=nothing", 404),
            ("GET", "/docs", 404),
        ],
    )
    def test_paths_and_methods(self, server: RunningServer, method: str, path: str, status: int) -> None:
        answer = server.client.request(method, path)
        assert answer.status_code == status and error_of(answer)

    def test_another_type_of_content(self, server: RunningServer) -> None:
        answer = server.client.post("/v1/completions", content=json.dumps(COMPLETION), headers={"Content-Type": "text/plain"})
        assert answer.status_code == 400 and error_of(answer)

    def test_a_name_that_is_not_this_machines(self, server: RunningServer) -> None:
        answer = server.client.get("/v1/models", headers={"Host": "evil.example"})
        assert answer.status_code == 421 and error_of(answer)
