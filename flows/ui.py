"""MLflow's and Prefect's web pages on loopback: ``python -m flows.ui``, until Ctrl-C.

Where MLFLOW_TRACKING_URI or PREFECT_API_URL names a server, or ``make deploy`` runs here, that one is told instead of starting another.
"""

import json
import socket
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

from flows import prefect_address
from tasks.registry import pages, tracking, versions
from tasks.registry.params import RegisterParams
from tasks.registry.promotion import CHAMPION
from tasks.runtime.params import read_section
from tasks.runtime.permissions import close_to_others
from tasks.runtime.services import Service, kept_running
from tasks.runtime.settings import prefect_home

LONGEST_START = 120.0
DATA_REPORT = "shard/data-report.html"  # among the artifacts of shard's run


def main() -> None:
    """Start MLflow's and Prefect's servers, unless others are named, and print where the pages are that people look for."""
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
        print(f"\nMLflow   {mlflow}")
        try:
            addresses = mlflow_pages()
        except (OSError, tracking.MlflowException) as error:  # the server that is named
            sys.exit(f"ui: {error}")
        for name, address in addresses.items():
            print(f"  {name:28} {mlflow.rstrip('/')}/{address}")
        print(f"Prefect  {prefect}")
        if is_empty(prefect):
            print("  empty until the flow ran: make flow")
        print(f"\nFor flows to appear there: export PREFECT_API_URL={prefect}/api\nCtrl-C ends what was started here.", flush=True)


def mlflow_pages() -> dict[str, str]:
    """What people look for in MLflow: addresses below its server's by what is there. Only the runs where no version is registered."""
    client = tracking.connect()
    experiment = tracking.experiment_of(client)
    addresses = {"runs": pages.experiment_runs(experiment)}
    name = read_section("register", RegisterParams).name
    if not (registered := versions.versions_of(client, name)):
        return addresses
    number = versions.aliases(client, name).get(CHAMPION) or str(registered[-1].version)
    version = client.get_model_version(name, number)
    label = f"version {number}" + (", champion" if CHAMPION in version.aliases else "")
    addresses |= {label: pages.version(name, number), "its lineage": pages.artifact(experiment, str(version.run_id), "lineage.html")}
    sharded = version.tags.get("run.shard", "")
    if sharded and DATA_REPORT in [artifact.path for artifact in client.list_artifacts(sharded, str(Path(DATA_REPORT).parent))]:
        addresses["its data report"] = pages.artifact(experiment, sharded, DATA_REPORT)
    return addresses


def is_empty(prefect: str) -> bool:
    """Whether no flow has run on a Prefect server, as far as it says so: one with a key tells nobody."""
    request = Request(f"{prefect}/api/flow_runs/count", data=b"{}", headers={"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=10) as answer:
            return json.load(answer) == 0
    except (OSError, ValueError):
        return False


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
