"""The passport of a model version: every digest behind it, in one file. Standard library only."""

from pathlib import Path
from typing import Any

from tasks.digests import sha256

FORMAT = 1


def passport(records: dict[str, dict[str, Any]], files: list[Path], checkpoint: Path) -> dict[str, Any]:
    """What stands behind a checkpoint directory, from the records of the stages that made it."""
    return {
        "format": FORMAT,
        "checkpoint": {p.relative_to(checkpoint).as_posix(): sha256(p) for p in sorted(checkpoint.rglob("*")) if p.is_file()},
        "stages": {
            stage: {
                name: record[name]
                for name in ("record", "started", "seconds", "params", "inputs", "outputs", "metrics", "code", "versions")
            }
            for stage, record in records.items()
        },
        "files": {path.name: sha256(path) for path in files},
    }
