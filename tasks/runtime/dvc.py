"""DVC's command line and the layout of its cache: every call of the command in tasks/ and flows/. It imports nothing of DVC."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LISTING = ".dir"  # ends the digest of a directory, which names the JSON list of its files


class DvcError(ValueError):
    """DVC failed; the message holds the command."""


def command(*arguments: str) -> list[str]:
    """The command line that runs DVC, with this interpreter."""
    return [sys.executable, "-m", "dvc", *arguments]


def dvc(*arguments: str) -> str:
    """Run DVC in the working directory and return its output; ``DvcError`` where it fails."""
    result = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    if result.returncode:
        raise DvcError(f"dvc {' '.join(arguments)} failed; run in the repository's directory")
    return result.stdout.strip()


def cache_dir() -> Path:
    """DVC's cache of the project here, absolute. DVC takes a second to answer. ``DvcError`` outside a project."""
    return Path(dvc("cache", "dir")).absolute()


def objects_dir(cache: Path) -> Path:
    """Where a cache keeps its objects, each named by its MD5."""
    return cache / "files" / "md5"


def object_path(objects: Path, digest: str) -> Path:
    """Where an object lies, or would lie, below ``objects``."""
    return objects / digest[:2] / digest[2:]


def objects_in(objects: Path) -> Iterator[tuple[str, Path]]:
    """Every object: its digest and its path."""
    for path in sorted(objects.glob("??/*")):
        yield path.parent.name + path.name, path
