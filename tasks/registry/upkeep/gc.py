"""Frees disk space and keeps what registered versions need: ``python -m tasks.registry gc [--dry-run]`` (``make gc``).

Of DVC's cache stays what the workspace names and what the dvc.lock and data.dvc of any registered version name; the rest DVC removes.
Of MLflow's artifacts go those of runs that were deleted. Remotes and training states are left alone.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tasks.registry import tracking, versions
from tasks.registry.params import RegisterParams
from tasks.registry.upkeep import forget, needed
from tasks.runtime import dvc, git
from tasks.runtime.errors import Unavailable
from tasks.runtime.params import read_section

WORKTREES = Path(".cache/rebuild")


def collect(*, shared: bool, dry: bool, incomplete: bool = False) -> None:
    """``ValueError`` where the cache may be other projects' too, or where what is needed cannot be told; then nothing is removed.

    DVC's lock is held meanwhile, as by ``dvc gc``: no other command of DVC is between its beginning and its end.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    try:
        with Repo() as repo, lock_repo(repo):
            cache = Path(repo.cache.local.path)
            if not shared and not cache.is_relative_to(Path.cwd()):
                raise ValueError(
                    f"DVC's cache is {cache.parents[1]}, outside this directory: others may need what is in it; "
                    "--shared says that nobody does"
                )
            _collect(repo, _digests(cache, incomplete=incomplete), cache, dry=dry)
    except LockError:
        raise Unavailable("DVC works in this directory; try again when it has ended") from None
    except DvcException as error:
        raise ValueError(f"DVC: {error}") from None
    if dry:
        return
    if WORKTREES.exists():
        shutil.rmtree(WORKTREES)
        git.prune_worktrees()
        print(f"removed  {WORKTREES}")
    _deleted_runs()


def _digests(cache: Path, *, incomplete: bool) -> set[str]:
    """Every object that a registered version or the workspace names."""
    listings = needed.Listings(cache, gone=forget.purged_objects(cache), incomplete=incomplete)
    name = read_section("register", RegisterParams).name
    client = tracking.connect()
    for version in versions.versions_of(client, name):
        assert version.run_id
        listings.add(f"{name} version {version.version}", *_pointers(client, version.run_id))
        print(f"kept     {name} version {version.version}: what its dvc.lock and data.dvc name")
    present = [path.read_text(encoding="utf-8") if (path := Path(p)).exists() else "" for p in needed.POINTERS]
    listings.add("the workspace", *present, here=True)
    print("kept     the workspace: what dvc.lock and data.dvc name here")
    return listings.digests


def _pointers(client: tracking.MlflowClient, run_id: str) -> list[str]:
    """The texts of a version's dvc.yaml, dvc.lock and data.dvc. Looking a run up takes time; in the embedded store they lie together."""
    first, *others = needed.POINTERS
    pipeline = versions.artifact(client, run_id, first)
    siblings = [pipeline.with_name(name) for name in others]
    paths = [path if path.exists() else versions.artifact(client, run_id, path.name) for path in siblings]
    return [path.read_text(encoding="utf-8") for path in (pipeline, *paths)]


def _collect(repo: Any, digests: set[str], cache: Path, *, dry: bool) -> None:
    """Remove from DVC's caches what neither ``digests`` nor DVC's own look at the workspace names."""
    from dvc_data.hashfile.gc import gc
    from dvc_data.hashfile.hash_info import HashInfo

    used = {HashInfo("md5", digest) for digest in digests}
    used.update(*repo.used_objs(force=True).values())
    kept = {str(info.value) for info in used}
    unneeded = [path for digest, path in dvc.objects_in(cache) if digest not in kept]
    size = sum(path.stat().st_size for path in unneeded)
    for path in unneeded if dry else ():
        print(f"would go {path.relative_to(cache.parents[1])}")
    for store in {id(store): store for _, store in repo.cache.by_scheme() if store}.values():
        gc(store, used, dry=dry)
    verb, left = ("would go", "are there") if dry else ("removed ", "remain")
    print(f"{verb} from DVC's cache: {len(unneeded)} objects, {size / 1e6:,.1f} MB; {_size(cache) / 1e6:,.1f} MB {left}")


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
