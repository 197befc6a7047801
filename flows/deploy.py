"""What runs the deployments of prefect.yaml: ``python -m flows.deploy``, until Ctrl-C.

A Prefect server, unless PREFECT_API_URL names one; a work pool that does one run at a time; the deployments; an automation that calls
a run crashed from which nothing is heard any more; a worker here, in this directory. Everything may be there already. The server keeps
its state in SQLite, or where PREFECT_API_DATABASE_CONNECTION_URL says, in PostgreSQL.
"""

import os
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import cast

os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

from tasks.local import close_to_others, prefect_home
from tasks.ui import running, start_prefect

POOL = "local"
TAG = "medical-llm"  # of the deployments in prefect.yaml
SILENCE = f"{TAG}: nothing is heard of a run"
# Prefect's shortest time between two signs of life of a run is 30 seconds (prefect.toml); two may get lost.
LONGEST_SILENCE = timedelta(seconds=float(os.environ.get("PIPELINE_LONGEST_SILENCE", "120")))


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
    heartbeat, ends = "prefect.flow-run.heartbeat", ("Completed", "Unchanged", "Failed", "Unavailable", "TimedOut", "Cancelled", "Crashed")
    Automation(
        name=SILENCE,
        description="A run that gave signs of life and gives none any more, without having ended, is crashed.",
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *(f"prefect.flow-run.{state}" for state in ends)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification({"prefect.resource.id": [f"prefect.tag.{TAG}"], "prefect.resource.role": ["tag"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=LONGEST_SILENCE,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="nothing was heard of it any more: its process or machine is gone")],
    ).create()


def prefect(*arguments: str) -> None:
    """Prefect's own command; ends this one, with what it said, where it fails."""
    result = subprocess.run([sys.executable, "-m", "prefect", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"deploy: prefect {' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")


def main() -> None:
    try:
        close_to_others(prefect_home())
    except (ValueError, OSError) as error:
        sys.exit(f"deploy: {error}")
    with running() as processes:
        if not os.environ.get("PREFECT_API_URL"):
            os.environ["PREFECT_API_URL"] = start_prefect(processes) + "/api"
        apply()
        processes.append(subprocess.Popen([sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]))
        page = os.environ["PREFECT_API_URL"].removesuffix("/api")
        print(f"\nPrefect  {page}\n\nprefect deployment run pipeline/pipeline starts a run; Ctrl-C ends what was started here.", flush=True)


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    main()
