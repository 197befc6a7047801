"""The flow that polls, its look at drift, and the notices to people, with a real Prefect server and a real webhook."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from helpers.builders import sentences, write_table
from helpers.project import Project

FLOW = (sys.executable, "-m", "flows.new_data")


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """An address that takes notices, and what it got."""
    got: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", got
    server.shutdown()


def tokens(project: Project) -> set[str]:
    return {path.name for path in (project.path / ".cache" / "tokens").glob("*.npz")}


def artifacts(api: str) -> dict[str, str]:
    """The newest artifact of every key, as text."""
    texts = httpx.post(f"{api}/artifacts/latest/filter", json={}, timeout=30).json()
    return {artifact["key"]: json.dumps(artifact["data"]) for artifact in texts}


@pytest.mark.system
def test_it_runs_when_something_changed_and_only_then(copied: Project, prefect_api: str, webhook: tuple[str, list[dict[str, str]]]) -> None:
    address, notices = webhook
    copied.environment |= {"PREFECT_API_URL": prefect_api, "PIPELINE_SETTLED_SECONDS": "0", "PIPELINE_NOTIFY": "custom-webhook/team"}
    block = f"""
from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block
Block(name="team", url="{address}", json_data={{"subject": "{{{{subject}}}}", "body": "{{{{body}}}}"}}).save("team", overwrite=True)
"""
    copied.run(sys.executable, "-c", block)
    assert "Unchanged: neither the raw corpus nor the code changed" in copied.run(*FLOW).stdout
    assert notices == []

    before = tokens(copied)
    others = [(q.replace("condition", "syndrome"), a.replace("Condition", "Syndrome")) for q, a in sentences(12)]
    write_table(copied.path / "data" / "more.csv", others)
    copied.environment["PIPELINE_SETTLED_SECONDS"] = "3600"
    assert "the next look takes it" in copied.run(*FLOW).stdout
    copied.environment["PIPELINE_SETTLED_SECONDS"] = "0"
    output = copied.run(*FLOW).stdout
    assert "changed: data.dvc" in output and "on-new-data: Completed" in output
    assert 0 < len(tokens(copied) - before) <= 2 * len(others) < len(before)
    assert "12 new documents" in artifacts(prefect_api)["drift"]
    assert [n["subject"] for n in notices if "version 2" in n["subject"]], notices
    assert "Unchanged" in copied.run(*FLOW).stdout

    # What fails on its input is told once, with the stage and the reason, and is not tried again before something changes.
    notices.clear()
    write_table(copied.path / "data" / "bad.csv", [("What is this?", "")] * 60)
    failed = copied.run(*FLOW, check=False)
    assert failed.returncode == 1 and "max_rejected_share" in failed.stdout
    assert "Retry" not in failed.stdout
    (notice,) = notices
    assert notice["subject"].endswith(": failed") and "preprocess failed" in notice["body"]
    assert "nothing changed since a run that failed" in copied.run(*FLOW).stdout
    assert len(notices) == 1


@pytest.mark.slow
def test_what_a_run_came_to_stands_on_its_page(finished: Project, prefect_api: str) -> None:
    project = Project(finished.path)
    project.environment["PREFECT_API_URL"] = prefect_api
    project.run(sys.executable, "-m", "flows.pipeline")
    texts = artifacts(prefect_api)
    assert {"scores", "data", "decision"} <= set(texts)
    assert "answer_nll" in texts["scores"] and "medical-llm version 1" in texts["decision"]
    assert "conditions" in texts["data"]
    for text in texts.values():
        assert "a red rash" not in text  # of a record
