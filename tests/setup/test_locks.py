"""The locks hold for every Python and platform that is supported, and a clone in a path with blanks is set up from them."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from setup.install import LOCKS, Installer

ROOT = Path(__file__).resolve().parents[2]
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin")
# What has no wheels anywhere; all of it is Python.
BUILT = ("antlr4-python3-runtime", "jsonpath-rw", "rouge-score", "sqlitedict", "word2number")


def locked(name: str) -> dict[str, set[str]]:
    """The versions of each package, and its hashes."""
    text = LOCKS[name].read_text(encoding="utf-8")
    return {m[1]: {m[2], *re.findall("sha256:[0-9a-f]{64}", m[0])} for m in re.finditer(r"^(\S+)==(\S+)(?:.*\\\n)+.*", text, flags=re.M)}


def test_what_runs_is_tested_with_the_same_files() -> None:
    run, dev = locked("run"), locked("dev")
    assert {name: dev[name] for name in run} == run
    assert all(len(files) > 1 for files in dev.values())
    assert {"dvc", "mlflow", "pip"} - set(run) == {"pip"} and {"pytest", "transformers", "uv"} <= set(dev) - set(run)


@pytest.mark.system
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("version", ["3.11", "3.14"])
def test_every_package_has_a_file_for(platform: str, version: str, tmp_path: Path) -> None:
    installer = Installer()
    wheels = ("--only-binary", ":all:", *(word for name in BUILT for word in ("--no-binary", name)))
    where = ("--python-platform", platform, "--python-version", version, "--target", str(tmp_path))
    command = (str(installer.uv), "pip", "install", "--dry-run", "--no-deps", "--require-hashes", *wheels, *where, "-r", str(LOCKS["dev"]))
    environment = installer.environment | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}  # the oldest for which PyTorch has builds
    result = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, check=False)
    assert re.search(r"Would install 3\d\d packages", result.stderr), result.stderr[-2000:]


@pytest.mark.system
def test_a_clone_in_a_path_with_blanks_is_set_up_and_runs_without_being_activated(tmp_path: Path) -> None:
    clone = tmp_path / "my medical pipeline"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    (clone / ".cache").mkdir()
    shutil.copytree(ROOT / ".cache" / "setup", clone / ".cache" / "setup")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "DVC_SITE_CACHE_DIR", "PYTHON", "TORCH")
    }
    environment["PYTHON"] = sys.executable
    first = subprocess.run(["make", "setup"], cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    assert re.search(r"packages +requirements.lock …\n +2\d\d packages, 1,\d\d\d MB, \d+ s\n", first.stdout)
    start = time.monotonic()
    subprocess.run(["make", "setup"], cwd=clone, env=environment, check=True, capture_output=True)
    assert time.monotonic() - start < 2
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    dvc = [str(clone / ".venv" / "bin" / "dvc"), "repro", "--single-item", "check_params"]
    result = subprocess.run(dvc, cwd=clone, env=bare, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (clone / "artifacts" / "params-checked").exists()
    assert not list((clone / ".venv").glob("lib/python3*/site-packages/pytest"))  # what runs is installed, and no more
