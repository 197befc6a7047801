"""Two accounts of one machine: the pipeline's owner, and another who looks and plants what the owner may run."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from helpers.project import PATIENCE

OWNER, OTHER, MEMBER, GROUP = 61001, 61002, 61003, 61009  # no account of any machine; the member is in the group
SUDO = [] if os.geteuid() == 0 else ["sudo", "-n"]
# An interpreter in root's home: its files, which are no secret, are reached by right; nothing can be written by it.
READS = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def as_root(*command: str | Path) -> None:
    subprocess.run([*SUDO, *map(str, command)], check=True, capture_output=True)


def run_as(
    uid: int, *command: str, cwd: Path, group: int = 0, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command as another account, of no group but its own and ``group``; with an environment of its own, in a home of its own."""
    home = cwd if uid != OWNER else cwd.parent
    variables = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(home), "LOGNAME": f"account{uid}"} | (
        environment or {}
    )
    groups = [f"--groups={group}"] if group else ["--clear-groups"]
    rights = READS if uid == OWNER and not _can_start_python() else []
    account = [f"--reuid={uid}", f"--regid={uid}", *groups, *rights]
    values = [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(
        [*SUDO, "setpriv", *account, "env", "-i", *values, *command],
        cwd=cwd,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
    )


@cache
def _can_start_python() -> bool:
    account = ["setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups"]
    command = [*SUDO, *account, "env", "-i", sys.executable, "-c", "import ctypes, torch"]
    return subprocess.run(command, check=False, capture_output=True, cwd="/").returncode == 0
