"""Makes a version's weights again and compares them: ``python -m tasks.registry rebuild [VERSION]``.

The code comes from the version's commit, params, pipeline, lock, data pointer and requirements from the version itself, into a git
worktree below ``.cache/rebuild``. Everything up to the weights is run anew, nothing is taken from DVC's run cache, and nothing is
registered: what the runs tell goes to a tracking store of the worktree's own.
"""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.registry import tracking, versions
from tasks.registry.lineage import passport
from tasks.registry.package import REPRODUCTION
from tasks.runtime import dvc, git
from tasks.runtime.artifacts import DATA_POINTER, RAW
from tasks.runtime.digests import sha256
from tasks.runtime.permissions import CACHES
from tasks.runtime.record import processor

WORK = Path(".cache/rebuild")
SECRETS = Path(".dvc/config.local")
DOWNLOADS = Path(".cache/downloads")  # wheels by digest, which the stage base would fetch again


def rebuild(which: str) -> list[str]:
    """The files of the checkpoint that came out with other bytes; ``ValueError`` where it could not be run."""
    client = tracking.connect()
    version: Any = versions.find(client, which)
    document = passport.read_passport(versions.artifact(client, version.run_id, passport.FILE))
    commit, dirty = document["code"]["commit"], document["code"]["dirty"]
    if dirty != "false":
        print(f"rebuild: {version.name} version {version.version} was made with uncommitted code; what its commit makes may differ")
    for difference in _differences(document):
        print(f"rebuild: {difference}")
    folder = (WORK / f"{version.name}-{version.version}").absolute()
    _remove(folder)
    try:
        git.add_worktree(folder, commit)
    except git.GitError as error:
        raise ValueError(f"{error}; is the version's commit in this clone?") from None
    try:
        for path in REPRODUCTION:
            if path.name in document["artifacts"]:
                shutil.copy(versions.artifact(client, version.run_id, path.name), folder / path)
        if SECRETS.exists():  # remotes and their keys
            shutil.copy(SECRETS, folder / SECRETS)
        _run(folder, "dvc", "cache", "dir", "--local", str(dvc.cache_dir()))
        _bring_data(folder, document)
        if DOWNLOADS.exists():
            (folder / DOWNLOADS.parent).mkdir(exist_ok=True)
            (folder / DOWNLOADS).symlink_to(DOWNLOADS.absolute())
        stages = ("dvc", "repro", "--force", "finetune")
        _run(folder, *stages, MLFLOW_TRACKING_URI=f"sqlite:///{folder / 'rebuild.db'}")
        expected = document["trees"][passport.CHECKPOINT]["files"]
        findings = list(passport.compare(passport.CHECKPOINT, expected, folder / passport.CHECKPOINT))
    finally:
        _remove(folder)
    for finding in findings:
        print(f"rebuild: {finding}")
    return [finding.name for finding in findings if finding.state != "equal"]


def _differences(document: dict[str, dict[str, dict[str, dict[str, str]]]]) -> list[str]:
    """Of this machine from the one that trained, as far as they may change bits."""
    record = document["stages"]["finetune"]
    differences = [f"trained on {was}, here is {processor()}" for was in [record["machine"]["processor"]] if was != processor()]
    for package, was in record["versions"].items():
        here = ".".join(map(str, sys.version_info[:3])) if package == "python" else metadata.version(package)
        if str(was) != here:
            differences.append(f"trained with {package} {was}, here is {here}")
    return differences


def _bring_data(folder: Path, document: dict[str, dict[str, dict[str, dict[str, str]]]]) -> None:
    """The raw corpus: from DVC's cache, this directory, a remote, or built again where it is the default one."""
    if _run(folder, "dvc", "checkout", str(DATA_POINTER), check=False):
        return
    raw_files = document["trees"][str(RAW)]["files"]
    if all((RAW / name).is_file() and sha256(RAW / name) == digest for name, digest in raw_files.items()):
        for name in raw_files:
            (folder / RAW / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(RAW / name, folder / RAW / name)
    elif not _run(folder, "dvc", "pull", str(DATA_POINTER), check=False):
        _run(folder, sys.executable, "-m", "tasks.corpus", str(RAW), "--only-for", str(DATA_POINTER))


def _run(folder: Path, *command: str, check: bool = True, **environment: str) -> bool:
    """Run a command in the worktree with its output; whether it succeeded."""
    if command[0] == "dvc":
        command = tuple(dvc.command(*command[1:]))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_TRACKING"))}
    # A version of before may have no setting for it, and then DVC shares it with every account.
    kept["DVC_SITE_CACHE_DIR"] = str(Path(CACHES["DVC_SITE_CACHE_DIR"]).absolute())
    result = subprocess.run(command, cwd=folder, env=kept | {"PATH": path} | environment, check=False)
    if check and result.returncode:
        raise ValueError(f"'{' '.join(command[-4:])}' failed in {folder}; what it says stands above")
    return result.returncode == 0


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    git.prune_worktrees()
