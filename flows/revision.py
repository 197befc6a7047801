"""The git revision that a flow works with."""

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tasks.runtime import git
from tasks.runtime.git import NOT_CODE, code_version

LOCK = Path("requirements.lock")


class Unusable(Exception):
    """A revision cannot be taken until a person has done something."""


class NotThere(Exception):
    """The remote does not answer."""


def check_out(revision: str) -> str:
    """Work with a branch, brought forward to what its remote has, or with a commit; what was done, in words.

    Tracked files other than data.dvc and dvc.lock must be as committed. dvc.lock is put back first: DVC knows the results that it
    named by their inputs, and restores them.
    """
    if code_version().get("dirty"):
        raise Unusable(f"tracked files other than {' and '.join(NOT_CODE)} differ from the commit; commit or restore them")
    if _git("remote"):
        try:
            _git("fetch", "--quiet", "--all", "--tags")
        except Unusable as error:
            raise NotThere(str(error)) from None
    if _git("ls-files", "dvc.lock"):  # before the first run there is none
        _git("checkout", "--quiet", "--", "dvc.lock")
    if _is_branch(revision):
        _git("checkout", "--quiet", revision)
        if git.succeeds("rev-parse", "--verify", "--quiet", f"{revision}@{{upstream}}"):
            _git("merge", "--quiet", "--ff-only", f"{revision}@{{upstream}}")
    else:
        _git("checkout", "--quiet", "--detach", revision)
    _must_be_installed()
    return f"working with {_git('rev-parse', '--short', 'HEAD')} ({revision})"


def _is_branch(name: str) -> bool:
    return git.succeeds("show-ref", "--verify", "--quiet", f"refs/heads/{name}")


def _must_be_installed() -> None:
    """Another revision may want other libraries; ``Unusable`` names the first that is not what the lock file says."""
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if not line[:1].isalnum():  # a hash of the one above
            continue
        locked = Requirement(line.removesuffix("\\"))
        # The lock is for every Python and platform.
        if (not locked.marker or locked.marker.evaluate()) and not locked.specifier.contains(_installed(locked.name), prereleases=True):
            has = _installed(locked.name) or "none"
            raise Unusable(
                f"{LOCK} wants {locked.name} {str(locked.specifier)[2:]}, and {has} is installed; run 'make setup' and start again"
            )


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _git(*arguments: str) -> str:
    try:
        return git.git(*arguments).strip()
    except git.GitError as error:
        raise Unusable(str(error)) from None
