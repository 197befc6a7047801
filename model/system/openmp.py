"""OpenMP's defaults, which torch reads as it is imported: how long threads spin at a barrier, and how many there are.

A step of a small model has hundreds of barriers. By default libgomp's threads spin at each for milliseconds; where another process has
their partner's core, that takes the whole time slice. After a short spin they sleep (bench/shared_cores.py measures both). Who sets
these variables is right.
"""

import os
import sys
from pathlib import Path

SPIN_COUNT = 1000  # rounds, some microseconds
_CGROUPS = Path("/sys/fs/cgroup")


def set_defaults() -> None:
    """Set the variables of this process and its children, unless they are set or torch is there already."""
    if "torch" in sys.modules:
        return
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
    if (count := available_cores()) < _affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(count))


def available_cores(cgroups: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Whole cores that this process may use: of its affinity, and at most the quota of its control groups (containers, services)."""
    return max(1, min([_affinity(), *(int(quota) for quota in _quotas(cgroups, own))]))


def _affinity() -> int:
    """Cores that the process may run on; all of them on systems that do not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(cgroups: Path, own: Path) -> list[float]:
    """The quotas of the process's control groups, in cores: of version 2, and of version 1 as a container sees its own."""
    try:
        path = next(line.split(":", 2)[2] for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        path = "/"
    inner = cgroups / path.strip("/")
    folders = [folder for folder in (inner, *inner.parents) if folder.is_relative_to(cgroups)]
    limits = [_read(folder / "cpu.max").split() for folder in folders]
    limits.append([_read(cgroups / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")])
    return [int(limit[0]) / int(limit[1]) for limit in limits if len(limit) == 2 and limit[0].isdecimal() and limit[1].isdecimal()]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
