import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from urllib.request import urlopen

import psutil
import pytest
from helpers.browser import Page
from helpers.project import PATIENCE, Project

pytestmark = pytest.mark.system


@pytest.fixture
def taken() -> Iterator[None]:
    """Prefect's usual port, in use by somebody."""
    with socket.socket() as other:
        with suppress(OSError):
            other.bind(("127.0.0.1", 4200))
            other.listen()
        yield


@pytest.mark.usefixtures("taken")
def test_both_pages_answer_on_loopback_and_end_with_the_command(finished: Project, devtools: int) -> None:
    command = [sys.executable, "-m", "flows.ui"]
    environment = finished.environment | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=finished.path, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    addresses: dict[str, str] = {}
    deep: dict[str, str] = {}
    try:
        for line in process.stdout:
            if line.startswith(("MLflow", "Prefect")):
                addresses |= dict([line.split()])
            elif line.startswith("  ") and "#" in line:
                name, _, address = line.strip().rpartition(" ")
                deep[name.strip()] = address
            if "empty until the flow ran" in line:
                break
            assert not line.startswith("Ctrl-C"), "it does not say that Prefect is empty"
        for name, shown in (
            ("runs", "preprocess"),
            ("version 1, champion", "There is no champion, and every threshold is met."),
            ("its lineage", "Path:"),
            ("its data report", "Path:"),
        ):
            assert deep[name].startswith(addresses["MLflow"] + "/#/")
            page = Page(devtools, width=1300)
            page.open(deep[name])
            page.wait(f"document.body.innerText.includes({json.dumps(shown)})", 60)
            assert page.evaluate("document.body.innerText.includes('Model registry')")  # not in the mode for applications
        for address in addresses.values():
            assert address.startswith("http://127.0.0.1:")
            with urlopen(address, timeout=20) as page:
                assert b"<html" in page.read().lower()
        with urlopen(addresses["Prefect"] + "/ui-settings", timeout=20) as settings:
            assert json.load(settings)["api_url"] == addresses["Prefect"] + "/api"
    finally:
        servers = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(PATIENCE)
    assert len(servers) >= 2
    assert not [p for p in servers if p.is_running()]
