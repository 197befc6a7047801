"""Where the tracking store is. Known without MLflow, which takes seconds to import."""

from pathlib import Path

from tasks.runtime import git
from tasks.runtime.settings import setting

DATABASE = "mlflow.db"


def main_worktree() -> Path:
    """The repository that the embedded store belongs to, also from a linked worktree or a DVC experiment's copy."""
    here = Path.cwd().resolve()
    for parent in (here, *here.parents):
        if parent.name == ".dvc":  # .dvc/tmp/exps/…: a copy that DVC throws away
            return parent.parent
    return git.main_worktree(here)


def tracking_uri() -> str:
    """The store's address: the setting ``MLFLOW_TRACKING_URI``, or the embedded store of the main worktree."""
    return setting("MLFLOW_TRACKING_URI") or f"sqlite:///{main_worktree() / DATABASE}"
