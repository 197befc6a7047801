"""The people that raw files name, on their way from the readers to the de-identification: in the private work folder alone."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tasks.corpus.documents import KnownPerson, private
from tasks.runtime.files import whole


@contextmanager
def writer(work: Path, name: str) -> Iterator[Callable[[KnownPerson], object]]:
    """A function that writes the people of one file, each once, as lines of JSON; its file is there when it is whole."""
    (work / "known").mkdir(mode=0o700, exist_ok=True)
    path = work / "known" / f"{name}.jsonl"
    with whole(path, unique=True) as partial, open(partial, "w", encoding="utf-8", errors="replace", opener=private) as file:
        written: set[bytes] = set()  # digests

        def write(person: KnownPerson) -> None:
            line = json.dumps(asdict(person), ensure_ascii=False) + "\n"
            digest = hashlib.sha256(line.encode("utf-8", "replace")).digest()[:16]
            if digest not in written:
                written.add(digest)
                file.write(line)

        yield write


def read_known(work: Path) -> Iterator[KnownPerson]:
    """All people that the raw files name, in the order of the files; one that several files name comes again."""
    for path in sorted((work / "known").glob("*.jsonl")):
        with open(path, encoding="utf-8") as file:
            for record in map(json.loads, file):
                yield KnownPerson(record["group"], tuple((type_, value) for type_, value in record["identifiers"]))
