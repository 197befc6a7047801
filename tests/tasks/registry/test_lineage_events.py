"""OpenLineage's events: none unless configured; to a file and to a server; what cannot be delivered waits."""

import json
import os
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks.registry import lineage_events, tracking
from tasks.runtime.files import write_whole
from tasks.runtime.record import PENDING

RECORD = {
    "record": str(uuid.UUID(int=7)),
    "stage": "shard",
    "command": "python -m tasks.shard artifacts/documents artifacts/shards",
    "started": "2026-01-02T03:04:05.678+00:00",
    "seconds": 61.5,
    "peak_memory_mb": 100,
    "params": {"tokenizer": "base", "limits": [1, 2]},
    "inputs": {"artifacts/documents": "0" * 32 + ".dir"},
    "outputs": {"artifacts/shards": "1" * 32 + ".dir"},
    "metrics": {"tokens": 5.0},
    "history": [],
    "reports": [],
    "code": {"commit": "a" * 40, "dirty": False},
    "versions": {"python": "3.11.0", "torch": "2.13.0"},
    "machine": {"processor": "none", "cores": 2},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a record that waits, and a tracking store of its own; the client adds to the environment."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    PENDING.mkdir(parents=True)
    write_whole(PENDING / f"{RECORD['record']}.json", RECORD)
    return tmp_path


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]], list[int]]]:
    """Its address, what it was sent, and the statuses that it will answer with before 201."""
    sent: list[tuple[str, dict[str, Any]]] = []
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = statuses.pop(0) if statuses else 201
            if status == 201:
                sent.append((self.path, body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", sent, statuses
        running.shutdown()


def test_a_stage_is_a_start_and_an_end_in_a_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project / "events.jsonl"
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT", json.dumps({"type": "file", "log_file_path": str(path), "append": True}))
    tracking.replay_pending()
    started, ended = map(json.loads, path.read_text().splitlines())
    assert (started["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert (started["eventTime"], ended["eventTime"]) == ("2026-01-02T03:04:05.678+00:00", "2026-01-02T03:05:07.178+00:00")
    assert started["run"]["runId"] == ended["run"]["runId"] == RECORD["record"]
    assert (ended["job"]["namespace"], ended["job"]["name"]) == ("medllama", "shard")
    assert not started["outputs"]
    for side, path_of in (("inputs", "artifacts/documents"), ("outputs", "artifacts/shards")):
        (dataset,) = ended[side]
        assert (dataset["namespace"], dataset["name"]) == ("medllama", path_of)
        assert dataset["facets"]["version"]["datasetVersion"] == RECORD[side][path_of]  # type: ignore[index]
    params = {p["key"]: p["value"] for p in ended["run"]["facets"]["executionParameters"]["parameters"]}
    assert params == {"tokenizer": "base", "limits": "[1, 2]"}
    assert not list(PENDING.iterdir())


@pytest.mark.usefixtures("project")
def test_a_server_gets_them_where_its_url_is_given(server: tuple[str, list[Any], list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, sent, _ = server
    monkeypatch.setenv("OPENLINEAGE_URL", address)
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "hospital")
    tracking.replay_pending()
    tracking.replay_pending()
    assert [(path, body["eventType"], body["job"]["namespace"]) for path, body in sent] == [
        ("/api/v1/lineage", "START", "hospital"),
        ("/api/v1/lineage", "COMPLETE", "hospital"),
    ]


@pytest.mark.usefixtures("project")
def test_what_cannot_be_delivered_waits_with_its_record(
    server: tuple[str, list[Any], list[int]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    address, sent, statuses = server
    monkeypatch.setenv("OPENLINEAGE_URL", address)
    statuses.append(403)
    tracking.replay_pending()
    assert not sent and len(list(PENDING.iterdir())) == 1
    assert "the record of shard waits" in capfd.readouterr().out
    tracking.replay_pending()
    assert len(sent) == 2 and not list(PENDING.iterdir())
    experiment = tracking.experiment_of(client := tracking.connect())
    assert len(client.search_runs([experiment])) == 1


@pytest.mark.parametrize("disabled", [False, True])
@pytest.mark.usefixtures("project")
def test_nothing_is_sent_unless_configured(
    server: tuple[str, list[Any], list[int]], monkeypatch: pytest.MonkeyPatch, disabled: bool
) -> None:
    if disabled:
        monkeypatch.setenv("OPENLINEAGE_URL", server[0])
        monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert not lineage_events.configured()
    tracking.replay_pending()
    assert not server[1] and not list(PENDING.iterdir())
