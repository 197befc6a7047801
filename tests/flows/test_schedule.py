"""What `make deploy` starts: a server, the deployments of prefect.yaml and a worker, which fires by the schedule."""

import pytest
from helpers.deployed import fires_and_registers
from helpers.project import Project

pytestmark = pytest.mark.system


def test_a_cron_schedule_fires_and_ends_with_a_registered_version(sharded: Project) -> None:
    fires_and_registers(sharded)
