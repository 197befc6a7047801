"""OpenMP's defaults stand before torch is imported, and count the cores that a process may really use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.project import ROOT

from model.system.openmp import SPIN_COUNT, available_cores

AFFINITY = len(os.sched_getaffinity(0))
SHOWN = "import os; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_NUM_THREADS'))"


def shown(code: str, **settings: str) -> list[str]:
    names = ("GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names} | settings
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.parametrize("module", ["model.llama", "tasks.training.loop", "tasks.validate", "serve.api"])
def test_the_spin_is_short_wherever_torch_comes_from(module: str) -> None:
    assert shown(f"import {module}, sys; assert 'torch' in sys.modules; {SHOWN}")[0] == str(SPIN_COUNT)


def test_what_is_set_stays() -> None:
    assert shown(f"import model; {SHOWN}", GOMP_SPINCOUNT="7")[0] == "7"
    assert shown(f"import model; {SHOWN}", OMP_WAIT_POLICY="active")[0] == "None"
    assert shown(f"import torch, model; {SHOWN}")[0] == "None"


@pytest.mark.parametrize(
    ("files", "group", "cores"),
    [
        ({}, "0::/", AFFINITY),
        ({"cpu.max": "max 100000"}, "0::/", AFFINITY),
        ({"cpu.max": "100000 100000"}, "0::/", 1),
        ({"cpu.max": "50000 100000"}, "0::/", 1),
        ({"cpu.max": "10000000 100000"}, "0::/", AFFINITY),
        ({"system.slice/cpu.max": "150000 100000", "system.slice/a.service/cpu.max": "max 100000"}, "0::/system.slice/a.service", 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/docker/x", 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/", AFFINITY),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, files: dict[str, str], group: str, cores: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(group + "\n")
    assert available_cores(tmp_path, tmp_path / "own") == cores


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert available_cores(tmp_path, tmp_path / "missing") == AFFINITY
