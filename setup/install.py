"""The environment in .venv: ``python -m setup.install run|dev|torch``. Only the standard library; ``make`` calls it.

uv installs what requirements.lock names, by its hashes. PyTorch comes last and apart, as its builds differ from machine to machine: by the
hashes of torch.lock, which are those of the public index, where that index or a mirror of it gives the build. ``TORCH`` chooses another
one: cpu, cu130, … from PyTorch's own index. Such a build has a label in its version, and setup says that no hash is known for it.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from setup.package_index import NO_INDEX, REMEDY, pip_environment, reason
from setup.preflight import preflight

VENV = Path(".venv")
TOOLS = Path(".cache", "setup")
PYTHON = VENV / "bin" / "python"
LOCKS = {"run": Path("requirements.lock"), "dev": Path("requirements-dev.lock")}
TORCH_LOCK = Path("torch.lock")
TORCH_BUILD = VENV / "torch-build"
ACTIVATE = "export DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true PREFECT_SERVER_ANALYTICS_ENABLED=false\n"


class Failed(Exception):
    """A phase ended; the message says why and what to do."""


@contextmanager
def phase(name: str, todo: str) -> Iterator[None]:
    """What comes, and then how many packages and MB of it came and how long it took."""
    start, before, installed = time.monotonic(), size(), packages()
    print(f"{name:<13} {todo} …", flush=True)
    yield
    came = packages() - installed
    count = f"{came} package{'s' * (came != 1)}, " if came else ""
    print(f"{'':<13} {count}{(size() - before) / 1e6:,.0f} MB, {time.monotonic() - start:.0f} s", flush=True)


def size() -> int:
    """Bytes of all that setup wrote."""
    folders = (VENV, TOOLS)
    return sum(os.lstat(f"{root}/{name}").st_size for folder in folders for root, _, names in os.walk(folder) for name in names)


def packages() -> int:
    return len(list(VENV.glob("lib/python3*/site-packages/*.dist-info")))


def run(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """Its output; ``Failed`` with its reason where it fails."""
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        raise Failed(f"\n{reason(result.stdout)}")
    return result.stdout


def from_index(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """A command that asks the package index; ``Failed`` also says what may be in its way."""
    try:
        return run(*command, environment=environment)
    except Failed as error:
        raise Failed(f"{error}\n{REMEDY}") from None


def uv() -> Path:
    """The uv that requirements-dev.lock pins, from the package index, verified by its hash; kept in .cache."""
    block = re.search(r"^uv==(\S+)(?:.*\\\n)+.*\n", LOCKS["dev"].read_text(encoding="utf-8"), flags=re.M)
    assert block
    folder = TOOLS / f"uv-{block[1]}"
    if not (folder / "bin" / "uv").exists():
        shutil.rmtree(folder, ignore_errors=True)
        partial = folder.with_suffix(".part")
        partial.mkdir(parents=True, exist_ok=True)
        requirement = partial / "requirement.txt"
        requirement.write_text(block[0], encoding="utf-8")
        pip = (PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "1")
        from_index(*pip, "--quiet", "--no-deps", "--require-hashes", "--target", partial, "--requirement", requirement)
        partial.rename(folder)
    return folder / "bin" / "uv"


class Installer:
    """uv for an environment, with the index that pip is configured for."""

    def __init__(self, python: Path = PYTHON) -> None:
        self.uv = uv().absolute()
        self.python = python
        self.environment = pip_environment(str(PYTHON))

    def pip(self, *arguments: str | Path) -> str:
        """First with what uv has in its cache, which needs no network."""
        no_index = ("--no-index",) if self.environment.get(NO_INDEX, "").lower() in ("1", "true", "yes", "on") else ()
        command = (self.uv, "pip", *arguments, *no_index, "--python", self.python)
        try:
            return run(*command, "--offline", environment=self.environment)
        except Failed:
            return from_index(*command, environment=self.environment)

    def locked(self, lock: Path) -> None:
        # What must be built (three small packages without wheels) is built with the setuptools that the lock names.
        self.pip("install", "--no-deps", "--require-hashes", "--build-constraints", LOCKS["run"], "--requirements", lock)

    def check(self) -> None:
        run(self.uv, "pip", "check", "--python", self.python)

    def torch(self, build: str) -> None:
        requirement = re.search(r'"(torch==[^"]+)"', Path("pyproject.toml").read_text(encoding="utf-8"))
        assert requirement
        backend = ("--torch-backend", build, "--reinstall-package", "torch") if build else ()
        plan = self.pip("install", requirement[1], *backend, "--dry-run")
        if "nvidia-" in plan and not Path("/proc/driver/nvidia/version").exists():
            print("  hint: this PyTorch brings CUDA, 5 GB, and there is no NVIDIA GPU here\n    remedy: make setup TORCH=cpu", flush=True)
        planned = re.search(r"^ \+ (torch==\S+)", plan, flags=re.M)
        if planned and planned[1] == requirement[1] and not build:
            self.pip("install", "--no-deps", "--require-hashes", "--requirements", TORCH_LOCK)
        elif planned:
            print(f"  hint: {TORCH_LOCK} has no hash of {planned[1]}; what the index gives is trusted", flush=True)
        self.pip("install", requirement[1], *backend)


def install_run() -> None:
    """Make .venv anew, with what ``make run`` needs."""
    if not preflight(Path.cwd()):
        raise Failed("")
    build = os.environ.get("TORCH") or (TORCH_BUILD.read_text(encoding="utf-8") if TORCH_BUILD.exists() else "")
    with phase("environment", str(VENV)):
        run(sys.executable, "-m", "venv", "--clear", VENV)
        with open(VENV / "bin" / "activate", "a", encoding="utf-8") as file:
            file.write(ACTIVATE)
    with phase("uv", "installs the rest"):
        installer = Installer()
    with phase("packages", str(LOCKS["run"])):
        installer.locked(LOCKS["run"])
    with phase("torch", build or "the index's build"):
        installer.torch(build)
        TORCH_BUILD.write_text(build, encoding="utf-8")
    installer.check()


def install_dev() -> None:
    """Add what tests, checks and measurements need."""
    with phase("packages", str(LOCKS["dev"])):
        installer = Installer()
        installer.locked(LOCKS["dev"])
    installer.check()


def install_torch() -> None:
    """Change PyTorch's build for the one that ``TORCH`` names."""
    build = os.environ["TORCH"]
    if TORCH_BUILD.read_text(encoding="utf-8") != build:
        with phase("torch", build):
            Installer().torch(build)
        TORCH_BUILD.write_text(build, encoding="utf-8")


COMMANDS: dict[str, Callable[[], None]] = {"run": install_run, "dev": install_dev, "torch": install_torch}

if __name__ == "__main__":
    try:
        COMMANDS[sys.argv[1]]()
    except Failed as error:
        sys.exit(f"{error}\nsetup: not done" if str(error) else "setup: not done")
