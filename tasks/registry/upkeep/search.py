"""Searches everything in the project's directory for ids of records, packed files and git's history too. It changes nothing."""

import os
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks.corpus.byte_search import Matcher, blocks, holds, of_ids
from tasks.registry.lineage.passport import COPY
from tasks.runtime.artifacts import MODEL
from tasks.runtime.digests import sha256

# Programs; other projects; git's packed history, which is read through git.
SKIPPED = frozenset({".venv", "node_modules", "__pycache__", ".git"})
PROJECTS_OF_TESTS = Path(".cache/tests")


@dataclass
class Searched:
    """How many files were searched, and which hold an id, or the weights of a version that saw a record."""

    files: int = 0
    with_ids: list[str] = field(default_factory=list)
    with_weights: list[str] = field(default_factory=list)


def search(ids: Collection[str], weights: Collection[str], *, ignored: Collection[Path] = ()) -> Searched:
    """Search the working directory. ``weights``: SHA-256 of files; copies that the tracking store keeps are not listed."""
    result, matches, left_out = Searched(), of_ids(ids), {path.absolute() for path in ignored}
    for path in _files(Path()):
        if path.absolute() in left_out:
            continue
        result.files += 1
        if holds(path, matches):
            result.with_ids.append(path.as_posix())
        in_store = path.is_relative_to("mlartifacts") or path.is_relative_to(".dvc") or path.is_relative_to(MODEL)
        if path.suffix == ".safetensors" and not in_store and sha256(path) in weights:
            result.with_weights.append(path.as_posix())
    if _in_history(matches):
        result.with_ids.append("git's history")
    return result


def weights_of(artifacts: dict[str, str]) -> set[str]:
    """SHA-256 of a version's weights and adapters, from the files of its passport."""
    return {digest for name, digest in artifacts.items() if name.startswith(COPY) and name.endswith(".safetensors")}


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and Path(folder) / name != PROJECTS_OF_TESTS)
        yield from (path for name in sorted(files) if (path := Path(folder) / name).is_file() and not path.is_symlink())


def _in_history(matches: Matcher) -> bool:
    """Whether any object of git's has an id: a file of any commit, a message."""
    command = ["git", "cat-file", "--batch-all-objects", "--unordered", "--batch", "--buffer"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        # To the end, so that git is not ended while it writes.
        return sum(map(matches, blocks(process.stdout.read))) > 0
