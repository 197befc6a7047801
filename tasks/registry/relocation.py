"""Brings the embedded tracking store along when its project was moved, copied or restored: MLflow keeps absolute paths in it.

It knows the columns that hold them, and nothing of runs or versions.
"""

import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tasks.runtime.errors import Unavailable

ARTIFACTS = "mlartifacts"  # beside the database
# Every place where MLflow 3 keeps where artifacts lie; a table that a store does not have is passed over.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
SECONDS = 10.0  # to wait for another process that writes


def follow(database: Path, experiment: str) -> None:
    """Have a store name the ``mlartifacts`` beside it, after its project came from elsewhere; says so in a line.

    ``ValueError`` where the store cannot be written, or came without its artifacts; ``Unavailable`` while another process writes it.
    """
    project = database.parent
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=SECONDS)) as store:
            former = _former(store, experiment, project)
        if not former:
            return
        _must_have_come_whole(former, project)
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=SECONDS, isolation_level=None)) as store:
            store.execute("BEGIN IMMEDIATE")
            if former := _former(store, experiment, project):  # no other process was first
                _rewrite(store, former, project)
            store.execute("COMMIT")
    except sqlite3.OperationalError as error:
        _explain(error, database)
    if former:
        print(f"tracking: {database.name} came from {_path(former)}; its paths are those of {project} now", file=sys.stderr, flush=True)


def _former(store: sqlite3.Connection, experiment: str, project: Path) -> str:
    """The URI of the directory that the store was in; empty where that is this one, or artifacts lie where somebody else chose."""
    rows: list[tuple[str | None]] = []
    with suppress(sqlite3.OperationalError):  # not filled yet
        rows = store.execute("SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)).fetchall()
    location = (rows[0][0] if rows else None) or ""
    former = location.removesuffix(f"/{ARTIFACTS}")
    if former == location or not location.startswith("file:") or location == (project / ARTIFACTS).as_uri():
        return ""
    # A directory of that name on another disk, in which no project is: it was meant.
    elsewhere = (_path(former) / ARTIFACTS).is_dir() and not (_path(former) / ".dvc").exists() and not (project / ARTIFACTS).exists()
    return "" if elsewhere else former


def _must_have_come_whole(former: str, project: Path) -> None:
    if not (project / ARTIFACTS).is_dir() and (_path(former) / ARTIFACTS).is_dir():
        raise ValueError(
            f"mlflow.db came from {_path(former)} without {ARTIFACTS}/, which holds the versions: copy that directory here too, or remove "
            "mlflow.db, and a new store begins"
        )


def _rewrite(store: sqlite3.Connection, former: str, project: Path) -> None:
    for table, column in COLUMNS:
        if column not in {row[1] for row in store.execute(f"PRAGMA table_info({table})")}:
            continue
        for old, new in ((former, project.as_uri()), (str(_path(former)), str(project))):
            # The directory itself or what is below it; another whose name only begins alike stays.
            store.execute(
                f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
                f"WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'",
                {"old": old, "new": new},
            )


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def _explain(error: sqlite3.OperationalError, database: Path) -> None:
    if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        raise Unavailable(f"{database} came from elsewhere and another process is writing it; end that, or try again later") from None
    if error.sqlite_errorname.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        raise ValueError(
            f"{database} came from elsewhere, and its paths cannot be made those of this directory: let this account write it and "
            f"{database.parent} ({error})"
        ) from None
    raise ValueError(f"{database} cannot be read: {error}") from None
