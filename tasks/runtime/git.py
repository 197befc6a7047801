"""Git's command line: every call of it in tasks/ and flows/, and what git says of the code that runs."""

import subprocess
from pathlib import Path
from typing import Any

# DVC rewrites these two by itself when data or results change; they say nothing about the code.
NOT_CODE = ("data.dvc", "dvc.lock")


class GitError(ValueError):
    """Git failed; the message holds the command and what git said."""


def git(*arguments: str) -> str:
    """Run git in the working directory and return its output; ``GitError`` where it fails."""
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise GitError(f"git {arguments[0]}: {' '.join((result.stderr or result.stdout).split())}")
    return result.stdout


def succeeds(*arguments: str) -> bool:
    """Whether a git command ends with status 0: git's way to answer yes."""
    return subprocess.run(["git", *arguments], capture_output=True, check=False).returncode == 0


def code_version() -> dict[str, Any]:
    """The commit, and whether tracked files other than data.dvc and dvc.lock differ from it; empty outside git."""
    commit = _git_or_none("rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = [line[3:] for line in (_git_or_none("status", "--porcelain", "--untracked-files=no") or "").splitlines()]
    return {"commit": commit.strip(), "dirty": any(name.strip('"') not in NOT_CODE for name in changed)}


def is_linked_worktree() -> bool:
    """Whether the working directory is in a linked worktree and not in the repository's own."""
    paths = (_git_or_none("rev-parse", "--absolute-git-dir", "--git-common-dir") or "").splitlines()
    return len(paths) == 2 and Path(paths[0]).resolve() != Path(paths[1]).resolve()


def main_worktree(directory: Path) -> Path:
    """The directory of the repository that the working directory belongs to; ``directory`` outside git."""
    common = _git_or_none("rev-parse", "--git-common-dir")
    return directory if common is None else (directory / common.strip()).resolve().parent


def tracked_files() -> list[str]:
    """The paths that git tracks; ``GitError`` outside git."""
    return [name for name in git("ls-files", "-z").split("\0") if name]


def add_worktree(folder: Path, commit: str) -> None:
    """A linked worktree at a commit; ``GitError`` where git does not have the commit."""
    git("worktree", "add", "--detach", "--force", str(folder), commit)


def prune_worktrees() -> None:
    """Let git forget the linked worktrees whose directories are gone."""
    succeeds("worktree", "prune")


def _git_or_none(*arguments: str) -> str | None:
    try:
        return git(*arguments)
    except (OSError, GitError):
        return None
