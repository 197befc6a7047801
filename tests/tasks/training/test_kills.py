"""Training killed again and again, at any instant, ends as if nothing had happened; ``make kills`` does it twenty times."""

import os
import random
import signal
import time

import pytest
from helpers.pipeline import start, steps_told, wait_until_gone
from helpers.project import PATIENCE, Project

from tasks.runtime.digests import sha256

pytestmark = pytest.mark.system

KILLS = int(os.environ.get("KILLS", "2"))
STEPS = 150 * KILLS  # so that none of them comes after the end
AGAIN = ("dvc", "repro", "--force", "--single-item", "finetune")


def test_training_killed_at_random_instants_gives_the_same_bits_and_every_step_once(sharded: Project) -> None:
    # A state after every step, so that a good part of the instants lies within the writing of one.
    sharded.set_params("finetune", steps=STEPS, validate_every=10, checkpoint_every=1)
    chance = random.Random(2026)
    came_to = [killed_after(chance.uniform(0, 1.5), sharded, "dvc", "repro", "finetune") for _ in range(KILLS)]
    assert came_to == sorted(came_to) and 0 < came_to[-1] < STEPS
    sharded.run("dvc", "repro", "finetune")
    weights = sharded.path / "artifacts" / "model" / "model.safetensors"
    after_kills = sha256(weights)
    assert steps_told(sharded) == [list(range(1, STEPS + 1))]
    killed_after(0.5, sharded, *AGAIN)
    assert "going on after step" not in sharded.run(*AGAIN).stdout
    assert sha256(weights) == after_kills


def killed_after(seconds: float, project: Project, *command: str) -> int:
    """Run a command until training has come further and so many seconds more, and kill all of it; the step of the newest state."""
    before, deadline = newest_step(project), time.monotonic() + PATIENCE
    begun = start(project, *command)
    while newest_step(project) == before:
        assert time.monotonic() < deadline and begun.poll() is None, (project.path.parent / "log").read_text()
        time.sleep(0.01)
    time.sleep(seconds)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait(120)
    wait_until_gone(project)
    assert not (project.path / "artifacts" / "model").exists()
    return newest_step(project)


def newest_step(project: Project) -> int:
    return max((int(path.name) for path in (project.path / ".cache" / "train").glob("*/[0-9]*")), default=0)
