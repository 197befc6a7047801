"""Whether register finds everything as its last run here left it: then its result is that of the last run, and MLflow is not imported.

Only of the embedded store, whose bytes are here to compare: the database's, and names, sizes and times of the artifacts. What another
store holds, nobody knows without asking it.
"""

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.registry.relocation import ARTIFACTS
from tasks.registry.store import DATABASE, main_worktree, tracking_uri
from tasks.runtime.digests import code_digest, sha256
from tasks.runtime.files import whole
from tasks.runtime.permissions import refuse_foreign
from tasks.runtime.record import PENDING

LAST = Path(".cache/registered.json")
CODE = Path(__file__).resolve().parents[1]


def key_of(*inputs: Any) -> str:
    """The digest of all that a run of register reads besides the store: its inputs, the code, MLflow's version."""
    parts = [json.dumps(inputs, sort_keys=True, default=str), code_digest([CODE]), metadata.version("mlflow")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def last_result(key: str) -> dict[str, Any] | None:
    """What the last run here wrote, where inputs and store are still the same and no record waits for the store."""
    try:
        last = json.loads(LAST.read_bytes())
        if last["key"] != key or any(PENDING.glob("[!.]*.json")) or not (state := _state()) or last["state"] != state:
            return None
        result: dict[str, Any] = last["result"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    refuse_foreign(main_worktree())
    return result


def keep(key: str, result: dict[str, Any]) -> None:
    """Note what this run found or made, and the store as it is now."""
    if state := _state():
        LAST.parent.mkdir(exist_ok=True)
        with whole(LAST, unique=True) as partial:
            partial.write_text(json.dumps({"key": key, "state": state, "result": result}), encoding="utf-8")


def _state() -> str:
    """A digest of the embedded store; empty where another is used or this one is being written."""
    folder = main_worktree()
    database = folder / DATABASE
    writing = [database.with_name(f"{DATABASE}{ending}") for ending in ("-wal", "-journal")]
    if tracking_uri() != f"sqlite:///{database}" or not database.exists() or any(path.exists() for path in writing):
        return ""
    files = sorted((folder / ARTIFACTS).rglob("*"))
    listed = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files if path.is_file()]
    return hashlib.sha256("\n".join([sha256(database), *listed]).encode()).hexdigest()
