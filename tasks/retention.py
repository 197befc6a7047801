"""Frees disk space and keeps what registered versions need: ``python -m tasks.retention [--dry-run]`` (``make gc``).

Of DVC's cache stays what the workspace names and what the dvc.lock and data.dvc of any registered version name; DVC decides the rest.
Of MLflow's artifacts go those of runs that were deleted. Remotes and training states are left alone.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tasks import tracking, versions
from tasks.local import close_to_others
from tasks.stage import read_params

POINTERS = ("dvc.yaml", "dvc.lock", "data.dvc", "params.yaml")
WORKTREES = Path(".cache/rebuild")


def collect(*, shared: bool, dry: bool) -> None:
    """``ValueError`` where the cache may be other projects' too."""
    cache = Path(_dvc(Path(), "cache", "dir")).absolute()
    if not shared and not cache.is_relative_to(Path.cwd()):
        raise ValueError(f"DVC's cache is {cache}, outside this directory: others may need what is in it; --shared says that nobody does")
    name = read_params()["register"].model_dump()["name"]
    client = tracking.connect()
    before = _size(cache)
    with tempfile.TemporaryDirectory() as folder:
        projects = []
        for version in versions.versions_of(client, name):
            project = Path(folder) / str(version.version)
            project.mkdir()
            assert version.run_id
            # A project of DVC's own kind, so that DVC itself says what it needs.
            _dvc(project, "init", "--no-scm", "--quiet")
            _dvc(project, "cache", "dir", str(cache))
            for pointer in POINTERS:
                shutil.copy(versions.artifact(client, version.run_id, pointer), project / pointer)
            projects.append(str(project))
            print(f"kept     {name} version {version.version}: what its dvc.lock and data.dvc name")
        print("kept     the workspace: what dvc.lock and data.dvc name here")
        others = ["--projects", *projects] if projects else []
        _dvc(Path(), "gc", "--workspace", *others, "--force", *(["--dry"] if dry else []), told=True)
    if dry:
        return
    print(f"removed  from DVC's cache: {(before - _size(cache)) / 1e6:,.1f} MB; {_size(cache) / 1e6:,.1f} MB remain")
    if WORKTREES.exists():
        shutil.rmtree(WORKTREES)
        subprocess.run(["git", "worktree", "prune"], check=False)
        print(f"removed  {WORKTREES}")
    _deleted_runs()


def _deleted_runs() -> None:
    """Artifacts of runs that were deleted in the embedded store; a server's are its owner's to remove."""
    uri = tracking.tracking_uri()
    if not uri.startswith("sqlite:"):
        print(f"kept     artifacts in {uri.split('@')[-1]}: 'mlflow gc' there removes those of deleted runs")
        return
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri]
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        raise ValueError(f"mlflow gc failed: {(result.stderr or result.stdout).strip().splitlines()[-1]}")
    print("removed  from MLflow: deleted runs with their artifacts")


def _size(directory: Path) -> int:
    """Bytes of the files below it; a file with several names counts once."""
    return sum({(s.st_dev, s.st_ino): s.st_size for s in (p.stat() for p in directory.rglob("*") if p.is_file())}.values())


def _dvc(folder: Path, *arguments: str, told: bool = False) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ValueError(f"dvc {' '.join(arguments[:2])} failed: {result.stderr.strip()}")
    if told:
        print(result.stdout.strip())
    return result.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.retention", description="Free disk space; keep what registered versions need.")
    parser.add_argument("--dry-run", action="store_true", help="say what would go")
    parser.add_argument("--shared", action="store_true", help="also where DVC's cache lies outside this directory")
    arguments = parser.parse_args()
    try:
        close_to_others()
        collect(shared=arguments.shared, dry=arguments.dry_run)
    except (ValueError, OSError, tracking.MlflowException) as error:
        sys.exit(f"retention: {error}")


if __name__ == "__main__":
    main()
