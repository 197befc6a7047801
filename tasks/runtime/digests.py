"""Digests of files and directories; ``dvc_digest`` gives the values that DVC writes into dvc.lock and data.dvc."""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from tasks.runtime.errors import printable

SPECIAL = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def files_in(directory: Path) -> Iterator[Path]:
    """Every file below a directory that DVC versions: links to files are followed, as DVC does.

    ``ValueError`` names what DVC passes over in silence (a link to a folder), stumbles on (a link that leads nowhere) or waits for
    without end (a FIFO).
    """
    for folder, folders, names in os.walk(directory, onerror=_raise):
        for path in (Path(folder, name) for name in folders):
            if path.is_symlink():
                raise ValueError(f"{printable(path)} is a link to a folder, which DVC does not version; put the folder itself in its place")
        for path in (Path(folder, name) for name in names):
            if mode := _mode(path):
                if not stat.S_ISREG(mode):
                    raise ValueError(
                        f"{printable(path)} is {SPECIAL.get(stat.S_IFMT(mode), 'no file')}, which holds nothing to version; remove it"
                    )
                yield path


def _mode(path: Path) -> int:
    """Of the file behind a name; 0 where it went away meanwhile."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if path.is_symlink():
            raise ValueError(
                f"{printable(path)} is a link that leads to no file ({error.strerror}); remove it or put the file in its place"
            ) from None
        if isinstance(error, FileNotFoundError):
            return 0
        raise


def _raise(error: OSError) -> NoReturn:
    raise error


def dvc_digest(path: Path) -> str:
    """MD5 of a file; of a directory, MD5 of DVC's sorted JSON list of its files, with ``.dir`` appended."""
    if path.is_file():
        return _md5(path)
    files = sorted(files_in(path), key=lambda p: p.relative_to(path).as_posix())
    entries = [{"md5": _md5(p), "relpath": p.relative_to(path).as_posix()} for p in files]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(path: Path) -> str:
    """SHA-256 of a file; of a directory, that of the lines ``sha256sum`` prints for its files, sorted by path."""
    if path.is_file():
        return sha256(path)
    lines = "".join(f"{sha256(p)}  {p.relative_to(path).as_posix()}\n" for p in sorted(files_in(path)))
    return hashlib.sha256(lines.encode()).hexdigest()


def code_digest(paths: Iterable[Path]) -> str:
    """SHA-256 over the code in files and below folders, and what lies beside it; without what Python compiled."""
    sha = hashlib.sha256()
    for path in paths:
        files = [path] if path.is_file() else sorted(f for f in files_in(path) if "__pycache__" not in f.parts)
        for file in files:
            sha.update(f"{sha256(file)}  {file.relative_to(path.parent).as_posix()}\n".encode())
    return sha.hexdigest()


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
