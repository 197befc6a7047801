"""API keys, headers of every response, and what the log and the metrics say and do not say."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.serving import CHAT, COMPLETION, RunningServer, bearer, error_of, run_server

from serve import api
from serve.security import HEADERS

pytestmark = pytest.mark.slow

EXISTING = {
    "/v1/models",
    "/v1/models/medical-llm",
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/passport",
    "/metrics",
    "/openapi.json",
    "/tokenize",
    "/detokenize",
}


class TestSecurity:
    @pytest.fixture(scope="class")
    def locked(self, tiny_checkpoint: Path) -> Iterator[RunningServer]:
        with run_server({"medical-llm": tiny_checkpoint}, keys=("right-key", "other-key")) as running:
            yield running

    def test_every_route_without_with_a_wrong_and_with_the_right_key(self, locked: RunningServer) -> None:
        routes = [
            (method, path)
            for path, of in locked.client.get("/openapi.json", headers=bearer("right-key")).json()["paths"].items()
            for method in of
        ]
        routes += [("get", "/metrics"), ("get", "/openapi.json"), ("get", "/nothing"), ("post", "/healthz/x"), ("options", "/v1/models")]
        assert ("post", "/v1/chat/completions") in routes and ("get", "/healthz") in routes
        for method, template in routes:
            path = template.replace("{model}", "medical-llm")
            bodies = {"chat": CHAT, "comp": COMPLETION, "/tok": {"prompt": "fever"}, "/det": {"tokens": [5]}, "resp": {"input": "fever"}}
            body = bodies.get(path.removeprefix("/v1/")[:4])
            answers = [
                locked.client.request(method, path, json=body, headers=headers)
                for headers in ({}, bearer("wrong"), {"Authorization": "Basic right-key"}, bearer("right-key"), bearer("other-key"))
            ]
            if path in ("/healthz", "/readyz"):
                assert [a.status_code for a in answers] == [200] * 5
                continue
            for answer in answers[:3]:
                assert answer.status_code == 401 and error_of(answer)["code"] == "invalid_api_key", path
            for answer in answers[3:]:
                assert answer.status_code == (405 if method == "options" else 200 if path in EXISTING else 404), path

    def test_behind_a_proxy_it_has_the_proxys_name(self, locked: RunningServer) -> None:
        assert locked.client.get("/v1/models", headers=bearer("right-key") | {"Host": "model.example"}).status_code == 200

    def test_a_key_of_any_characters_is_only_wrong(self, locked: RunningServer) -> None:
        for key in (b"Bearer \xff\xfe", b"Bearer", b"", b"Bearer x y", b"Bearer " + b"k" * 10_000):
            assert locked.client.get("/v1/models", headers={b"Authorization": key}).status_code == 401

    def test_every_answer_carries_the_headers_and_no_other_origin_may_read_it(self, locked: RunningServer) -> None:
        for path, headers in (("/healthz", {}), ("/v1/models", {}), ("/v1/models", bearer("right-key")), ("/nothing", bearer("right-key"))):
            answer = locked.client.get(path, headers=headers | {"Origin": "https://evil.example"})
            assert HEADERS.items() <= {k: answer.headers.get(k, "") for k in HEADERS}.items()
            assert not [name for name in answer.headers if name.startswith("access-control")]
        preflight = locked.client.options("/v1/completions", headers={"Origin": "https://evil.example"} | bearer("right-key"))
        assert preflight.status_code == 405

    def test_no_prompt_is_in_logs_or_metrics(self, locked: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "serve")
        secret = "Mrs-Grey-has-tuberculosis"
        headers = bearer("right-key")
        answer = locked.client.post("/v1/completions", json=COMPLETION | {"prompt": secret}, headers=headers)
        locked.client.post("/v1/completions", json=COMPLETION | {"prompt": secret, secret: secret}, headers=headers)
        locked.client.get(f"/{secret}?{secret}", headers=headers | {"User-Agent": secret})
        metrics = locked.client.get("/metrics", headers=headers).text
        text = answer.json()["choices"][0]["text"]
        assert 'serve_requests_total{route="/v1/completions",status="200"}' in metrics and 'route="other"' in metrics
        assert "POST /v1/completions 200 in " in caplog.text and "GET other 404 in" in caplog.text
        for output in (caplog.text, metrics):
            assert secret not in output and text not in output and "right-key" not in output

    def test_metrics_count_tokens_and_show_the_load(self, locked: RunningServer) -> None:
        headers = bearer("right-key")
        locked.client.post("/v1/completions", json=COMPLETION, headers=headers)
        lines = dict(
            line.rsplit(" ", 1) for line in locked.client.get("/metrics", headers=headers).text.splitlines() if not line.startswith("#")
        )
        assert float(lines['serve_tokens_total{kind="completion",model="medical-llm"}']) >= 12
        assert float(lines['serve_first_token_seconds_count{model="medical-llm"}']) >= 1
        assert float(lines['serve_capacity{model="medical-llm"}']) == 4 * 256
        assert float(lines['serve_running{model="medical-llm"}']) == 0


def test_the_pages_files_are_sent_to_everybody_and_no_other_file_is(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"index.html": "<p>Ask</p>", "page.js": "ask()", "page.css": "p {}", "notes.txt": "private"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(api, "PAGE", tmp_path)
    with run_server({"medical-llm": tiny_checkpoint}, keys=("key",)) as server:
        responses = {path: server.client.get(path) for path in ("/", "/page.js", "/page.css")}
        assert [answer.text for answer in responses.values()] == ["<p>Ask</p>", "ask()", "p {}"]
        assert [answer.headers["content-type"].split(";")[0] for answer in responses.values()] == [
            "text/html",
            "text/javascript",
            "text/css",
        ]
        assert all(HEADERS.items() <= {k: answer.headers.get(k, "") for k in HEADERS}.items() for answer in responses.values())
        assert server.client.get("/notes.txt", headers=bearer("key")).status_code == 404
        assert server.client.get("/page.css/../notes.txt").status_code == 401
