"""MLflow's and Prefect's web pages on loopback: ``python -m flows.ui``, until Ctrl-C.

Where MLFLOW_TRACKING_URI or PREFECT_API_URL names a server, or ``make deploy`` runs here, that one is told instead of starting another.
"""

import socket
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from flows import prefect_address
from tasks.registry import tracking
from tasks.runtime.permissions import close_to_others
from tasks.runtime.services import Service, kept_running
from tasks.runtime.settings import prefect_home

LONGEST_START = 120.0


def main() -> None:
    """Start MLflow's and Prefect's servers, unless others are named, and print their addresses."""
    try:
        close_to_others(prefect_home())
        if not (mlflow := tracking.tracking_uri()).startswith("http"):
            tracking.connect()  # a store that came from elsewhere follows its project
    except (ValueError, OSError) as error:
        sys.exit(f"ui: {error}")
    with kept_running() as services:
        if not mlflow.startswith("http"):
            command = ["mlflow", "server", "--backend-store-uri", mlflow, "--workers", "1"]
            mlflow = start(command, 5000, "/health", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, services)
        prefect = prefect_address.address().removesuffix("/api")
        if not prefect:
            prefect = start_prefect(services)
        print(f"\nMLflow   {mlflow}\nPrefect  {prefect}\n", flush=True)
        print(f"For flows to appear there: export PREFECT_API_URL={prefect}/api\nCtrl-C ends what was started here.", flush=True)


def start_prefect(services: list[Service]) -> str:
    """Start Prefect's server; its address."""
    # Without this its page asks port 4200, whatever --port says.
    return start(["prefect", "server", "start"], 4200, "/api/health", {"PREFECT_SERVER_UI_API_URL": "{address}/api"}, services)


def start(command: list[str], port: int, health: str, environment: dict[str, str], services: list[Service]) -> str:
    """Start a server on ``port``, or a free one where that is taken, and wait until it answers; its address, which ``environment``
    may name as {address}."""
    port = _free(port)
    address = f"http://127.0.0.1:{port}"
    log = Path(".cache") / f"{command[0]}-server.log"
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    program = str(Path(sys.executable).with_name(command[0]))
    arguments = [program, *command[1:], "--host", "127.0.0.1", "--port", str(port)]
    resolved = {name: value.format(address=address) for name, value in environment.items()}
    server = Service(f"the {command[0]} server", arguments, resolved, log)
    server.start()
    services.append(server)
    deadline = time.monotonic() + LONGEST_START
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with urlopen(address + health, timeout=2):
                return address
        except OSError:
            time.sleep(0.3)
    sys.exit(f"ui: {command[0]} did not start; {log} says why")


def _free(port: int) -> int:
    for candidate in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
                return int(probe.getsockname()[1])
            except OSError:
                continue
    raise OSError("no free port on 127.0.0.1")


if __name__ == "__main__":
    main()
