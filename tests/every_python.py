"""The locks and the fast tests on every supported Python of this machine: ``make test-pythons``.

Without TORCH the tests that need no torch run, so that no build of several GB is fetched for each Python; with it (TORCH=cpu) all fast
tests do. Nothing is fetched to get a Python; those that are not here are named.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from setup.install import LOCKS, TOOLS, Installer

MINORS = range(11, 15)
# What imports no torch, nor conftest.py, which does.
WITHOUT_TORCH = (
    "tests/setup",
    *sorted(str(path) for path in Path("tests/tasks/corpus/readers").glob("test_*.py")),
    *(
        f"tests/tasks/corpus/test_{name}.py"
        for name in ("clinical_spans", "known", "notes", "ontologies", "readers", "tables", "tokenfile")
    ),
    *(f"tests/tasks/corpus/annotation/test_{name}.py" for name in ("sample", "scoring")),
    "tests/tasks/evaluation/test_scores.py",
    "tests/tasks/runtime/test_digests.py",
    "tests/serve/test_page.py",
)
FAST = "not slow and not pipeline and not system and not campaign and not gpu"


def candidates(minor: int) -> Iterator[str]:
    """Where a Python 3.``minor`` may be: on the path, at uv's place, at pyenv's."""
    yield f"python3.{minor}"
    found = subprocess.run(
        [Installer().uv, "python", "find", "--no-python-downloads", "--system", f"3.{minor}"], capture_output=True, text=True, check=False
    )
    yield found.stdout.strip()
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(root.glob(f"versions/3.{minor}.*/bin/python3.{minor}"), reverse=True))


def interpreter(minor: int) -> str | None:
    for path in candidates(minor):
        code = "import sys, ensurepip; print('%d.%d' % sys.version_info[:2])"
        if path and shutil.which(path):
            result = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
            if result.stdout.strip() == f"3.{minor}":
                return path
    return None


def run_tests(path: str, folder: Path, torch: str) -> bool:
    """Install both sets into a new environment and run the tests there."""
    python = folder / "bin" / "python"
    subprocess.run([path, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    installer = Installer(python)
    installer.locked(LOCKS["dev"])
    if torch:
        installer.torch(torch)
        installer.check()
    tests = () if torch else ("--noconftest", "-p", "helpers.raw_files", *WITHOUT_TORCH)
    environment = os.environ | {"PATH": f"{python.parent.absolute()}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": "tests"}
    passed = subprocess.run([python, "-m", "pytest", "-q", "-m", FAST, *tests], env=environment, check=False).returncode == 0
    shutil.rmtree(folder)
    return passed


def main() -> int:
    here = {minor: path for minor in MINORS if minor != sys.version_info[1] and (path := interpreter(minor))}
    missing = [f"3.{minor}" for minor in MINORS if minor not in here and minor != sys.version_info[1]]
    if missing:
        print(f"not on this machine, not tested: Python {', '.join(missing)}")
    failed = [f"3.{minor}" for minor, path in here.items() if not run_tests(path, TOOLS / f"python3.{minor}", os.environ.get("TORCH", ""))]
    if failed:
        print(f"failed on Python {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
