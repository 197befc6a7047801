"""What git says of the code that runs."""

import subprocess
from pathlib import Path
from typing import Any

# DVC rewrites these two by itself when data or results change; they say nothing about the code.
NOT_CODE = ("data.dvc", "dvc.lock")


def code_version() -> dict[str, Any]:
    """The commit, and whether tracked files other than data.dvc and dvc.lock differ from it; empty outside git."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = [line[3:] for line in (_git("status", "--porcelain", "--untracked-files=no") or "").splitlines()]
    return {"commit": commit.strip(), "dirty": any(name.strip('"') not in NOT_CODE for name in changed)}


def is_linked_worktree() -> bool:
    paths = (_git("rev-parse", "--absolute-git-dir", "--git-common-dir") or "").splitlines()
    return len(paths) == 2 and Path(paths[0]).resolve() != Path(paths[1]).resolve()


def _git(*arguments: str) -> str | None:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
