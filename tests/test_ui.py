import subprocess
import sys
import time
from urllib.request import urlopen

from conftest import Project


def test_both_pages_answer_on_loopback_and_end_with_the_command(finished: Project) -> None:
    command = [sys.executable, "-m", "tasks.ui"]
    environment = finished.environment | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=finished.path, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    found: dict[str, str] = {}
    try:
        for line in process.stdout:
            if line.startswith(("MLflow", "Prefect")):
                found |= dict([line.split()])
            if len(found) == 2:
                break
        for address in found.values():
            assert address.startswith("http://127.0.0.1:")
            with urlopen(address, timeout=20) as page:
                assert b"<html" in page.read().lower()
    finally:
        process.terminate()
        process.wait(30)
    time.sleep(0.5)
    for address in found.values():
        try:
            urlopen(address, timeout=2)
        except OSError:
            continue
        raise AssertionError(f"{address} still answers")
