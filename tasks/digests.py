"""Digests of files and directories; ``dvc_digest`` gives the values that DVC writes into dvc.lock and data.dvc."""

import hashlib
import json
from pathlib import Path


def dvc_digest(path: Path) -> str:
    """MD5 of a file; of a directory, MD5 of DVC's sorted JSON list of its files, with ``.dir`` appended."""
    if path.is_file():
        return _md5(path)
    files = sorted((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.relative_to(path).as_posix())
    entries = [{"md5": _md5(p), "relpath": p.relative_to(path).as_posix()} for p in files]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(path: Path) -> str:
    """SHA-256 of a file; of a directory, that of the lines ``sha256sum`` prints for its files, sorted by path."""
    if path.is_file():
        return sha256(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = "".join(f"{sha256(p)}  {p.relative_to(path).as_posix()}\n" for p in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
