"""What setup needs of a machine, looked at before the first download; each lack with what to type. Only the standard library."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

# What PyTorch has builds for.
PLATFORMS = (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64"))
OLDEST_GLIBC = (2, 28)
# The environment with PyTorch's CPU build, the default run's data and what it writes. A CUDA build takes 5 GB more.
NEEDED_GB = 5
CUDA_GB = 5


class Finding(NamedTuple):
    """``stops`` where setup cannot go on; else a hint."""

    stops: bool
    lack: str
    remedy: str


Check = Callable[[Path], Iterator[Finding]]


def check_platform(_: Path) -> Iterator[Finding]:
    machine = (platform.system(), platform.machine())
    if machine not in PLATFORMS:
        yield Finding(True, f"there is no PyTorch for {' '.join(machine)}", "use Linux on x86-64 or ARM64, or a Mac with Apple silicon")
    elif machine[0] == "Linux":
        name, version = platform.libc_ver()
        if name != "glibc" or tuple(map(int, version.split(".")[:2])) < OLDEST_GLIBC:
            yield Finding(True, f"the C library is {name or 'none that is known'} {version}", "use a Linux with glibc 2.28 or newer")


def check_python(_: Path) -> Iterator[Finding]:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        package = f"python3.{sys.version_info[1]}-venv"
        yield Finding(True, f"{sys.executable} lacks {' and '.join(missing)}", f"sudo apt-get install {package}")


def check_folder(project: Path) -> Iterator[Finding]:
    if os.pathsep in str(project):
        yield Finding(True, f"the path holds '{os.pathsep}', which PATH cannot: {project}", "rename or move the folder")
    if not os.access(project, os.W_OK):
        yield Finding(True, f"this account may not write to {project}", "clone the repository as the account that runs it")


def check_git(project: Path) -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield Finding(True, "there is no git", install("git"))
        return
    tracked = subprocess.run(["git", "cat-file", "-e", "HEAD:./dvc.yaml"], cwd=project, capture_output=True, text=True, check=False)
    if tracked.returncode == 0:
        return
    if "dubious ownership" in tracked.stderr:
        yield Finding(
            True, "the folder belongs to another account, so git refuses it", f"git config --global --add safe.directory '{project}'"
        )
        return
    if subprocess.run(["git", "var", "GIT_COMMITTER_IDENT"], cwd=project, capture_output=True, check=False).returncode:
        identity = "git config --global user.name NAME; git config --global user.email ADDRESS; "
    else:
        identity = ""
    lack = "the folder is no git repository with a commit, as after a download as zip; a model's lineage names a commit"
    yield Finding(True, lack, f"{identity}git init --quiet; git add --all; git commit --quiet -m 'As downloaded'")


def check_disk(project: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(project).free / 1e9
    if free < NEEDED_GB:
        yield Finding(True, f"{free:.1f} GB are free on the disk, {NEEDED_GB} are needed", "free some, or clone to another disk")
    elif free < NEEDED_GB + CUDA_GB and os.environ.get("TORCH") != "cpu":
        yield Finding(False, f"{free:.1f} GB are free, and PyTorch with CUDA would need {NEEDED_GB + CUDA_GB}", "make setup TORCH=cpu")


def check_compiler(_: Path) -> Iterator[Finding]:
    compiler = os.environ.get("CC", "cc").split()[0]
    if shutil.which(compiler) is None:
        yield Finding(False, f"there is no C compiler ({compiler}): generation on the CPU will be slower", install("gcc"))


CHECKS: tuple[Check, ...] = (check_platform, check_python, check_folder, check_git, check_disk, check_compiler)


def install(package: str) -> str:
    """The command that installs a package of the system."""
    if platform.system() == "Darwin":
        return "xcode-select --install"
    managers = {"apt-get": "apt-get install", "dnf": "dnf install", "zypper": "zypper install", "pacman": "pacman -S"}
    manager = next((command for name, command in managers.items() if shutil.which(name)), "")
    return f"sudo {manager} {package}" if manager else f"install {package}"


def report(findings: list[Finding]) -> str:
    """Each finding and its remedy, in lines of 80 columns at most; a command is never broken."""
    lines = []
    for finding in findings:
        text = f"{'problem' if finding.stops else 'hint'}: {finding.lack}"
        lines += textwrap.wrap(text, 78, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        lines += [f"    remedy: {part}" for part in finding.remedy.split("; ")]
    return "\n".join(lines)


def preflight(project: Path) -> bool:
    """Print what was seen; whether setup can go on."""
    findings = [finding for check in CHECKS for finding in check(project)]
    print(f"preflight     Python {platform.python_version()}, {shutil.disk_usage(project).free / 1e9:.0f} GB free", flush=True)
    if findings:
        print(report(findings), flush=True)
    return not any(finding.stops for finding in findings)
