"""MLflow's and Prefect's web pages on loopback: ``python -m tasks.ui``, until Ctrl-C.

Where MLFLOW_TRACKING_URI or PREFECT_API_URL names a server, that one is told instead of starting another.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from tasks import tracking
from tasks.local import close_to_others, prefect_home

LONGEST_START = 120.0


def main() -> None:
    try:
        close_to_others(prefect_home())
        if not (mlflow := tracking.tracking_uri()).startswith("http"):
            tracking.connect()  # a store that came from elsewhere follows its project
    except (ValueError, OSError) as error:
        sys.exit(f"ui: {error}")
    with running() as servers:
        if not mlflow.startswith("http"):
            command = ["mlflow", "server", "--backend-store-uri", mlflow, "--workers", "1"]
            mlflow = start(command, 5000, "/health", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, servers)
        prefect = os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
        if not prefect:
            prefect = start_prefect(servers)
        print(f"\nMLflow   {mlflow}\nPrefect  {prefect}\n", flush=True)
        print(f"For flows to appear there: export PREFECT_API_URL={prefect}/api\nCtrl-C ends what was started here.", flush=True)


@contextmanager
def running() -> Iterator[list[subprocess.Popen[bytes]]]:
    """A list to put processes in; they run until one of them ends, Ctrl-C or SIGTERM, and then all end, the last one first."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        yield processes
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def start_prefect(servers: list[subprocess.Popen[bytes]]) -> str:
    # Without this its page asks port 4200, whatever --port says.
    return start(["prefect", "server", "start"], 4200, "/api/health", {"PREFECT_SERVER_UI_API_URL": "{address}/api"}, servers)


def start(command: list[str], port: int, health: str, environment: dict[str, str], servers: list[subprocess.Popen[bytes]]) -> str:
    """Start a server on ``port``, or a free one where that is taken, and wait until it answers; its address, which ``environment``
    may name as {address}."""
    port = _free(port)
    address = f"http://127.0.0.1:{port}"
    log = Path(".cache") / f"{command[0]}-server.log"
    log.parent.mkdir(exist_ok=True)
    told = {name: value.format(address=address) for name, value in environment.items()}
    program = str(Path(sys.executable).with_name(command[0]))
    with open(log, "wb") as sink:
        arguments = [program, *command[1:], "--host", "127.0.0.1", "--port", str(port)]
        servers.append(subprocess.Popen(arguments, stdout=sink, stderr=sink, env=os.environ | told))
    deadline = time.monotonic() + LONGEST_START
    while time.monotonic() < deadline and servers[-1].poll() is None:
        try:
            with urlopen(address + health, timeout=2):
                return address
        except OSError:
            time.sleep(0.3)
    sys.exit(f"ui: {command[0]} did not start; {log} says why")


def _free(port: int) -> int:
    for wanted in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
                return int(probe.getsockname()[1])
            except OSError:
                continue
    raise OSError("no free port on 127.0.0.1")


if __name__ == "__main__":
    main()
