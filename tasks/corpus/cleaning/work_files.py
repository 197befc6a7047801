"""The files in the work folder by which passes hand on what they make; each is there when it is whole."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tasks.corpus.documents import Document, to_line
from tasks.runtime.files import whole


@contextmanager
def documents_file(directory: Path, partition: int) -> Iterator[Callable[[Document], object]]:
    """A function that writes the documents of a partition."""
    directory.mkdir(exist_ok=True)
    with whole_file(directory / f"{partition:03d}.jsonl") as file:
        yield lambda document: file.write(to_line(document))


@contextmanager
def rejections_file(work: Path, name: str) -> Iterator[Callable[[Mapping[str, object]], object]]:
    """A function that writes rejected records."""
    (work / "rejected").mkdir(exist_ok=True)
    with whole_file(work / "rejected" / f"{name}.jsonl") as file:
        yield lambda record: file.write(json.dumps(record, ensure_ascii=False) + "\n")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A file that is there when it is whole: two processes may make the same one after another's death."""
    with whole(path, unique=True) as partial, open(partial, "w", encoding="utf-8") as file:
        yield file


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array that is there when it is whole."""
    path.parent.mkdir(exist_ok=True)
    with whole(path, unique=True) as partial, open(partial, "wb") as file:
        np.save(file, array)
