"""The JSON files of a checkpoint directory, and files of it that are not there."""

import json
from pathlib import Path
from typing import Any

_POINTER = b"version https://git-lfs.github.com/spec/"  # git-lfs, docs/spec.md


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. ``ValueError`` names the file where it is missing or holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: {path.parent} is not a whole checkpoint directory") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        check_no_pointer(path)
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return value


def check_no_pointer(path: Path) -> None:
    """``ValueError`` where Git LFS left its pointer in a large file's place."""
    with open(path, "rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ValueError(f"{path} is a pointer of Git LFS, not the file itself; run 'git lfs pull' in {path.parent}")


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON with a newline at the end."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
