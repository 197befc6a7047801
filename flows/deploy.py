"""What runs the deployments of prefect.yaml: ``python -m flows.deploy``, until Ctrl-C.

A Prefect server, unless PREFECT_API_URL names one; a work pool that does one run at a time; the deployments; an automation that calls
a run crashed from which nothing is heard any more; a worker here, in this directory. Everything may be there already. The server keeps
its state in SQLite, or where PREFECT_API_DATABASE_CONNECTION_URL says, in PostgreSQL. Server and worker are started again when one dies.
"""

import argparse
import os
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import cast

os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

from flows import prefect_address
from flows.ui import start_prefect
from tasks.runtime.permissions import close_to_others
from tasks.runtime.services import Service, kept_running
from tasks.runtime.settings import prefect_home

POOL = "local"
TAG = "medical-llm"  # of the deployments in prefect.yaml
SILENCE = f"{TAG}: nothing is heard of a run"
# States in which nothing is to be heard of a run.
QUIET = ("Completed", "Unchanged", "Failed", "Unavailable", "TimedOut", "Cancelled", "Crashed", "Suspended", "Paused")
# Prefect's shortest time between two signs of life of a run is 30 seconds (prefect.toml); two may get lost.
LONGEST_SILENCE = timedelta(seconds=float(os.environ.get("PIPELINE_LONGEST_SILENCE", "120")))
MESSAGE = f"nothing was heard of it for {LONGEST_SILENCE.total_seconds():.0f} s: its process or machine is gone, stopped or cut off"


def apply() -> None:
    """Pool, deployments and automation, on the server of PREFECT_API_URL; as often as one likes."""
    prefect("work-pool", "create", "--type", "process", "--overwrite", POOL)
    prefect("work-pool", "set-concurrency-limit", POOL, "1")
    prefect("--no-prompt", "deploy", "--all")
    call_silent_runs_crashed()


def call_silent_runs_crashed() -> None:
    """A run whose machine died stays ``Running`` by itself; Prefect's server can see that its signs of life have ceased."""
    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification
    from prefect.exceptions import ObjectNotFound

    with suppress(ObjectNotFound, ValueError):  # the first time there is none
        cast(Automation, Automation.read(name=SILENCE)).delete()
    heartbeat = "prefect.flow-run.heartbeat"
    Automation(
        name=SILENCE,
        description="A run that gave signs of life and gives none any more, without having ended, is crashed.",
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *(f"prefect.flow-run.{state}" for state in QUIET)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification({"prefect.resource.id": [f"prefect.tag.{TAG}"], "prefect.resource.role": ["tag"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=LONGEST_SILENCE,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=MESSAGE)],
    ).create()


def prefect(*arguments: str) -> None:
    """Prefect's own command; ends this one, with what it said, where it fails."""
    result = subprocess.run([sys.executable, "-m", "prefect", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"deploy: prefect {' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")


def main() -> None:
    """Start server and worker, apply the deployments, and keep both running until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description="Run the deployments of prefect.yaml, until Ctrl-C.")
    parser.add_argument("--apply", action="store_true", help="only tell the server of PREFECT_API_URL of them, and end")
    if parser.parse_args().apply:
        return apply()
    try:
        close_to_others(prefect_home())
    except (ValueError, OSError) as error:
        sys.exit(f"deploy: {error}")
    with prefect_address.only_here(), kept_running() as services:
        named = prefect_address.address()
        if not named:
            prefect_address.make_key()
        os.environ["PREFECT_API_URL"] = server = named or start_prefect(services) + "/api"
        if not named:
            prefect_address.point_here(server)
        apply()
        worker = Service("the worker", [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL], kill_group=False)
        worker.start()
        services.append(worker)
        print(f"\nPrefect  {server.removesuffix('/api')}\n\nIn this directory 'prefect deployment run pipeline/pipeline' starts a run.")
        if not named:
            print(f"Its page asks for the key that {prefect_address.ENV} holds as {prefect_address.KEY}; other accounts do not know it.")
            print(f"Elsewhere: export both lines of {prefect_address.ENV}.")
        print("Ctrl-C ends what was started here.", flush=True)
    return None


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    main()
